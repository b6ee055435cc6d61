"""A step size meta-trained by both objectives, and by every way of differentiating."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PyTree

from .._episodes import ConstantLength
from .._estimators import (
    AbstractEstimator,
    ForwardGradient,
    FullBackprop,
    FullES,
    PES,
)
from .._logger import AbstractLogger, Metrics
from .._meta_train import meta_train
from .._objectives import AbstractStepObjective, FinalLoss, LogFinalLoss
from .._unroll import AbstractUnroll
from ._base import AbstractExperiment, Claim, Reproduction
from ._stepsize_problem import ClosedForm, Descent, draw_problem, PlainUnroll


class _Method(eqx.Module):
    unroll: AbstractUnroll
    estimator: AbstractEstimator
    outer: optax.GradientTransformation


class StepSizeObjectives(AbstractExperiment):
    """Meta-gradients of a step size: which objective and which estimator survive.

    Wang et al. 2020: gradient descent on a 20-dimensional quadratic H = X X' / divisor,
    X in R^{20 x 40}, in float32. The meta-step on G is the paper's, 1 / (100 sqrt(k)),
    and 0 where the step size would be negative; back-propagation through the naive
    recursion has the paper's RMSProp or SGD of 1e-3, clipped at 1e4. The divisor is 10
    because with H = X X' itself (full size) the slope just above the optimum is 2 L = 250,
    and the paper's meta-steps jump across it. Estimators that see windows have several of
    them an episode: with windows of 20 steps at t = 1000 the step size changes so often
    while an episode runs that PES and forward mode end 20 to 75 % away.
    """

    size: int = 20
    columns: int = 40
    divisor: float = 10.0
    horizons: tuple[int, ...] = (80, 1000)
    starts: tuple[float, ...] = (0.1, 1.0)
    steps: int = 300
    windows: int = 4
    pairs: int = 16
    sigma: float = 1e-3
    tolerance: float = 0.1
    seed: int = 0

    def full(self) -> "StepSizeObjectives":
        horizons, starts = (40, 80, 160, 1000), (0.01, 0.1, 1.0)
        return dataclasses.replace(
            self, divisor=1.0, horizons=horizons, starts=starts, steps=1000
        )

    def run(self, say: Callable[[str], None]) -> Reproduction:
        key = jr.key(self.seed)
        problem = draw_problem(self.size, self.columns, self.divisor, key=key)
        cases = [(t, start) for t in self.horizons for start in self.starts]
        paths, zeros, dropped, optima = {}, {}, {}, []
        for t, start in cases:
            say(f"{t} steps from a step size of {start:g}: {self.steps} meta-steps ...")
            optima.append(float(problem.best_step_size(t)))
            for name, method in self.methods(Descent(problem), t).items():
                seen = _meta_train(method, start, self.steps, key)
                for record, value in zip((paths, zeros, dropped), seen, strict=True):
                    record.setdefault(name, []).append(value)
        names = list(paths)
        # log F at the start and at the best: float32 ends at 88, and below -87.
        logs = [
            [float(problem.loss(jnp.float32(e), t).log) for e in (start, best)]
            for (t, start), best in zip(cases, optima, strict=True)
        ]
        data = {
            "methods": np.array(names),
            "cases": np.array(cases),
            "log_loss": np.array(logs),
            "best_step_size": np.array(optima),
            "step_size": np.array([paths[n] for n in names]),
            "zero_gradients": np.array([zeros[n] for n in names]),
            "non_finite_gradients": np.array([dropped[n] for n in names]),
        }
        # Of the last tenth, where the meta-steps still jump to and fro.
        tail = data["step_size"][..., -max(1, self.steps // 10) :]
        data["error"] = np.abs(tail / data["best_step_size"][:, None] - 1).mean(-1)
        return Reproduction(data, _draw(data), _claims(data, self.tolerance))

    def methods(self, descent: Descent, t: int) -> dict[str, _Method]:
        """Ways of learning the step size, by objective, recursion and estimator."""
        plain, cured = PlainUnroll(descent), descent.renormalised()
        exact = ClosedForm(descent.problem, jnp.asarray(t))
        stable = _on_the_log_objective(1.0)
        window = max(1, t // self.windows)
        shape = window, self.pairs, self.sigma, ConstantLength(t)
        tangent = ForwardGradient(window, self.pairs, length=ConstantLength(t))
        out = {
            "G, closed form": _Method(exact, FullBackprop(1, 1), stable),
            "G, renormalised, backprop": _Method(cured, FullBackprop(t, 1), stable),
            "G, renormalised, forward": _Method(cured, tangent, stable),
            "G, renormalised, ES": _Method(cured, FullES(t, *shape[1:3]), stable),
            "G, renormalised, PES": _Method(cured, PES(*shape), stable),
        }
        losses: dict[str, tuple[AbstractStepObjective, optax.GradientTransformation]] = {
            "G": (LogFinalLoss(), _on_the_log_objective(1 / t)),
            "F": (FinalLoss(), _on_the_loss(optax.rmsprop(1e-3))),
        }
        for letter, (objective, outer) in losses.items():
            back = FullBackprop(t, 1, objective)
            forward = eqx.tree_at(lambda e: e.objective, tangent, objective)
            es = FullES(t, *shape[1:3], objective)
            pes = PES(*shape, objective=objective)
            out |= {
                f"{letter}, plain, backprop": _Method(plain, back, outer),
                f"{letter}, plain, forward": _Method(plain, forward, outer),
                f"{letter}, plain, ES": _Method(plain, es, outer),
                f"{letter}, plain, PES": _Method(plain, pes, outer),
            }
        by_sgd = _Method(
            plain, FullBackprop(t, 1, FinalLoss()), _on_the_loss(optax.sgd(1e-3))
        )
        return out | {"F, plain, backprop, SGD": by_sgd}


def _on_the_log_objective(scale: float) -> optax.GradientTransformation:
    schedule = lambda k: 0.01 / jnp.sqrt(k + 1.0)
    steps = optax.sgd(schedule), optax.keep_params_nonnegative()
    return optax.chain(optax.scale(scale), *steps)


def _on_the_loss(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(optax.clip(1e4), inner, optax.keep_params_nonnegative())


class _Path(AbstractLogger):
    """Remembers the step sizes."""

    seen: list[float]

    def __call__(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        self.seen.append(float(theta))


def _meta_train(
    method: _Method, start: float, steps: int, key: jax.Array
) -> tuple[np.ndarray, int, int]:
    """The path, and how many meta-gradients were exactly zero, and not finite."""
    path = _Path([])
    result = meta_train(
        method.unroll,
        method.estimator,
        jnp.asarray(start, jnp.float32),
        method.outer,
        steps=steps,
        key=key,
        logger=path,
        throw=False,
    )
    history = result.history
    seen = np.array(path.seen + path.seen[-1:] * (steps - len(path.seen)))
    # An estimator drops a particle whose gradient is not finite, which leaves zero.
    bad = (history.dropped > 0) | ~np.isfinite(history.gradient_norm)
    # A window in which no episode ends has no final loss: its zero is right.
    whole = method.estimator.warm_up == 0
    zero = (history.gradient_norm == 0) & ~bad & whole
    return seen, int(zero.sum()), int(bad.sum() + steps - len(path.seen))


def _claims(data: dict[str, np.ndarray], tolerance: float) -> list[Claim]:
    names, cases = list(data["methods"]), data["cases"]
    row = {n: i for i, n in enumerate(names)}
    error = lambda n: data["error"][row[n]]
    good = lambda n: bool(np.all(error(n) < tolerance))
    each = lambda n: ", ".join(
        f"{e:.1%} (t = {t:.0f}, from {s:g})"
        for e, (t, s) in zip(error(n), cases, strict=True)
    )
    failed = lambda n: int((~(error(n) < tolerance)).sum())
    cured = [n for n in names if "renormalised" in n]
    backprop = [n for n in names if "plain, backprop" in n]
    others = [n for n in names if "plain" in n and n not in backprop]
    count = lambda ns: ", ".join(f"{n}: {failed(n)} of {len(cases)}" for n in ns)
    lost = np.array([~(error(n) < tolerance) for n in backprop])
    by_case = ", ".join(
        f"{k} of {len(backprop)} (t = {t:.0f}, from {s:g})"
        for k, (t, s) in zip(lost.sum(0), cases, strict=True)
    )
    hardest = np.argmax(cases[:, 0] * 1e6 + cases[:, 1])
    beyond = np.any(np.abs(data["log_loss"]) > 87, axis=1)
    lost_there = np.array([(~(error(n) < tolerance))[beyond].sum() for n in others])
    zeros = data["zero_gradients"][[row[n] for n in backprop]]
    bad = data["non_finite_gradients"][[row[n] for n in backprop]]
    return [
        Claim(
            "the exact gradient of G converges, also for larger t and start",
            f"distance from the best step size at the end: {each('G, closed form')}",
            good("G, closed form"),
        ),
        Claim(
            "back-propagation often fails, worst for large t and start",
            f"failures {by_case}",
            bool(lost.any() and lost[:, hardest].sum() == lost.sum(0).max()),
        ),
        Claim(
            "it fails through G too, and it fails without a word: gradients exactly zero",
            f"failures {count(backprop)}; {int((zeros > 0).sum())} runs met zeros, "
            f"{int((bad > 0).sum())} NaN or infinity",
            bool(failed("G, plain, backprop") and (zeros > 0).any()),
        ),
        Claim(
            "through the renormalised recursion every estimator does as well as that",
            f"failures {count(cured)}",
            all(failed(n) <= failed("G, closed form") for n in cured),
        ),
        Claim(
            "no estimator helps where the loss itself overflows or underflows",
            f"in {int(beyond.sum())} of {len(cases)} cases it does, and there fail: "
            + ", ".join(f"{n}: {int(k)}" for n, k in zip(others, lost_there, strict=True)),
            bool(beyond.any() and np.all(lost_there == beyond.sum())),
        ),
    ]


def _draw(data: dict[str, np.ndarray]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        names, cases = list(data["methods"]), data["cases"]
        hardest = np.argmax(cases[:, 0] * 1e6 + cases[:, 1])
        shown = [n for n in names if "backprop" in n or "closed" in n]
        for name, style in zip(shown, ("-", "--", "-", "--", ":"), strict=True):
            path = data["step_size"][names.index(name), hardest]
            left.plot(
                np.maximum(path, 1e-3) / data["best_step_size"][hardest], style, label=name
            )
        t, start = cases[hardest]
        left.set(xlabel="meta-step", yscale="log", ylabel="step size / best one")
        left.set_title(f"t = {t:.0f}, from {start:g}", fontsize=10)
        left.legend(frameon=False, fontsize=7)
        error = np.nan_to_num(data["error"], nan=np.inf)
        shade = np.clip(np.log10(np.maximum(error, 1e-3)), -3, 0)
        right.imshow(shade, cmap="Greys", aspect="auto", vmin=-3, vmax=1)
        for i, j in np.ndindex(*error.shape):
            word = f"{error[i, j]:.1%}" if error[i, j] < 10 else f"{error[i, j]:.0f} x"
            mark = "0" if data["zero_gradients"][i, j] else ""
            mark += " NaN" if data["non_finite_gradients"][i, j] else ""
            word = f"{word}  {mark.strip()}".strip()
            colour = "white" if shade[i, j] > -0.7 else "black"
            right.text(j, i, word, color=colour, ha="center", va="center", fontsize=7)
        right.set_xticks(range(len(cases)), [f"t = {t:.0f}\nfrom {s:g}" for t, s in cases])
        right.set_yticks(range(len(names)), names)
        right.tick_params(labelsize=7)
        right.set_title("distance from the best; zeros and NaNs met", fontsize=10)

    return draw
