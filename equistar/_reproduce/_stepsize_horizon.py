"""The best step size against the horizon."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax

from .._estimators import FullBackprop
from .._meta_training import meta_train
from ..analysis import StepSizeProblem
from ._base import AbstractExperiment, Claim, uninterrupted
from ._listed import listed
from ._stepsize_problem import Descent, draw_problem


class StepSizeHorizon(AbstractExperiment):
    """The best step size of gradient descent depends on how many steps are taken.

    Wang et al. 2021, section 3: on random quadratics H = X X' / 40 with X in R^{20 x 40},
    in closed form; and as learned in float32 through the renormalised recursion, by
    meta-steps of `rate` / sqrt(k) on G, in units of 1 / L^2 with L the largest eigenvalue.
    They begin at `start` / L, where every run diverges, as the paper's do: above the
    optimum the slope of G is near 2 L, below it only near twice the smallest eigenvalue.
    """

    size: int = 20
    columns: int = 40
    problems: int = 8
    longest: int = 10_000
    points: int = 41
    learned: tuple[int, ...] = (1, 10, 80, 400)
    start: float = 3.0
    rate: float = 0.1
    steps: int = 400
    seed: int = 0

    def full(self) -> "StepSizeHorizon":
        learned = (1, 3, 10, 30, 80, 200, 1000, 3000)
        return dataclasses.replace(
            self, problems=20, points=81, learned=learned, steps=1000
        )

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        draw = lambda k: draw_problem(self.size, self.columns, float(self.columns), key=k)
        problems = jax.lax.map(draw, jr.split(jr.key(self.seed), self.problems))
        eigenvalues = np.asarray(problems.eigenvalues, np.float64)
        return {
            **self._in_closed_form(problems, say),
            "largest": eigenvalues.max(1),
            "smallest": eigenvalues.min(1),
            **self._learned(problems, say),
        }

    def _in_closed_form(
        self, problems: StepSizeProblem, say: Callable[[str], None]
    ) -> dict[str, np.ndarray]:
        grid = np.geomspace(1, self.longest, self.points).round()
        horizons = np.unique(grid).astype(np.int32)
        say(f"{len(horizons)} horizons on {self.problems} quadratics in closed form ...")
        best, excess = _closed_forms(problems, jnp.asarray(horizons))
        return {
            "horizons": horizons,
            "best_step_size": np.asarray(best, np.float64),
            "excess": np.asarray(excess, np.float64),
        }

    def _learned(
        self, problems: StepSizeProblem, say: Callable[[str], None]
    ) -> dict[str, np.ndarray]:
        each = [_member(problems, i) for i in range(self.problems)]
        rates, exact = [], []
        for t in self.learned:
            say(f"{self.steps} meta-steps through {t} steps on each ...")
            rates.append([self._learn(p, t) for p in each])
            exact.append([float(p.best_step_size(t)) for p in each])
        return {
            "learned_horizons": np.array(self.learned),
            "learned": np.array(rates),
            "learned_best": np.array(exact),
        }

    def _learn(self, problem: StepSizeProblem, t: int) -> float:
        top = float(problem.eigenvalues.max())
        schedule = lambda k: self.rate / top**2 / jnp.sqrt(k + 1.0)
        steps = optax.sgd(schedule), optax.keep_params_nonnegative()
        run = meta_train(
            Descent(problem).renormalised(),
            FullBackprop(t, 1),
            jnp.asarray(self.start / top, jnp.float32),
            optax.chain(*steps),
            steps=self.steps,
            key=jr.key(self.seed),
        )
        return float(uninterrupted(run).theta)

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        return [
            _depends_on_the_horizon(data),
            _is_not_monotone(data["best_step_size"]),
            _balances_in_the_end(data),
            _is_learned(data),
        ]

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        left, right = figure.subplots(1, 2)
        _draw_best_step_sizes(left, data)
        horizons, excess = data["horizons"], np.maximum(data["excess"][0], 1e-8)
        mesh = right.pcolormesh(
            horizons, horizons, np.log10(excess), cmap="Greys", shading="auto"
        )
        right.set(xscale="log", yscale="log", xlabel="horizon it was tuned for")
        right.set(ylabel="horizon it is used at")
        figure.colorbar(mesh, ax=right, label="log10 of what is lost in G")


def _member(problems: StepSizeProblem, i: int) -> StepSizeProblem:
    return jtu.tree_map(lambda x: x[i], problems)


@jax.jit
def _closed_forms(problems: StepSizeProblem, horizons: jax.Array):
    """Best step sizes, and what the one of each horizon loses at each other, in G."""

    def one(problem: StepSizeProblem):
        best = jax.vmap(problem.best_step_size)(horizons)
        at = jax.vmap(problem.log_objective, in_axes=(0, None))
        values = jax.vmap(at, in_axes=(None, 0))(best, horizons)
        return best, values - jnp.diagonal(values)[:, None]

    return jax.vmap(one)(problems)


def _depends_on_the_horizon(data: Mapping[str, np.ndarray]) -> Claim:
    best, horizons = data["best_step_size"], data["horizons"]
    spread = best.max(1) / best.min(1)
    # A unit of G is a factor of e for each step: what is lost over the whole of them.
    lost = data["excess"] * horizons[:, None] / np.log(10)
    by_short, by_long = lost[:, -1, 0], 10 ** lost[:, 0, -1]
    return Claim(
        "the best step size depends on the horizon",
        f"largest over smallest {listed(spread)}; the loss after {horizons[-1]} steps is "
        f"10^{by_short.min():.0f} times the least or more with the best step size of "
        f"one step, and that after one step {by_long.min():.3g} to {by_long.max():.3g} "
        f"times with the best of {horizons[-1]}",
        bool(np.all(spread > 1.05)),
    )


def _is_not_monotone(best: np.ndarray) -> Claim:
    change = np.diff(best) / best[:, :-1]
    turns = np.any(change > 1e-3, axis=1) & np.any(change < -1e-3, axis=1)
    return Claim(
        "it is not monotone in the horizon for every quadratic",
        f"both rises and falls on {int(turns.sum())} of {len(turns)}",
        bool(turns.any()),
    )


def _balances_in_the_end(data: Mapping[str, np.ndarray]) -> Claim:
    limit = 2 / (data["largest"] + data["smallest"])
    off = np.abs(data["best_step_size"][:, -1] / limit - 1)
    return Claim(
        "in the end the extremes balance, at 2 / (L + alpha)",
        f"off by {off.max():.1e} at t = {data['horizons'][-1]}",
        bool(np.all(off < 0.01)),
    )


def _is_learned(data: Mapping[str, np.ndarray]) -> Claim:
    off = np.abs(data["learned"] / data["learned_best"] - 1).max(1)
    return Claim(
        "meta-gradient descent through the renormalised recursion finds it, in float32",
        f"off by at most {listed(off, '.1e')} at t = {listed(data['learned_horizons'])}",
        bool(np.all(off < 0.02)),
    )


def _draw_best_step_sizes(axes: Any, data: Mapping[str, np.ndarray]) -> None:
    horizons, largest = data["horizons"], data["largest"]
    for i, (best, top) in enumerate(zip(data["best_step_size"], largest, strict=True)):
        style = {"color": "C0", "alpha": 1.0 if i == 0 else 0.25}
        label = "closed form" if i == 0 else None
        axes.plot(horizons, best * top, label=label, **style)
    at = data["learned_horizons"], data["learned"][:, 0] * largest[0]
    axes.plot(*at, "k.", markersize=8, label="meta-trained, renormalised")
    axes.axhline(2, color="grey", linestyle=":", label="2 / L")
    axes.set(xscale="log", xlabel="horizon t", ylabel="best step size x L")
    axes.legend(frameon=False, fontsize=8)
