"""A step size meta-trained by both objectives, and by every way of differentiating."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._smoothing import last_tenth
from ..analysis import StepSizeProblem
from ._base import AbstractExperiment, Claim
from ._stepsize_objectives_claims import claims, hardest
from ._stepsize_objectives_methods import Method, methods
from ._stepsize_problem import Descent, draw_problem


class StepSizeObjectives(AbstractExperiment):
    """Meta-gradients of a step size: which objective and which estimator survive.

    Wang et al. 2021: gradient descent on a 20-dimensional quadratic H = X X' / divisor,
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

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        key = jr.key(self.seed)
        problem = draw_problem(self.size, self.columns, self.divisor, key=key)
        runs = self._meta_train(problem, say)
        best = np.array([float(problem.best_step_size(t)) for t, _ in self._cases()])
        data = {
            "methods": np.array(list(runs)),
            "cases": np.array(self._cases()),
            "log_loss": self._log_losses(problem, best),
            "best_step_size": best,
        }
        for i, name in enumerate(("step_size", "zero_gradients", "non_finite_gradients")):
            data[name] = np.array([[case[i] for case in row] for row in runs.values()])
        # Of the last tenth, where the meta-steps still jump to and fro.
        tail = last_tenth(data["step_size"])
        data["error"] = np.abs(tail / best[:, None] - 1).mean(-1)
        return data

    def _cases(self) -> list[tuple[int, float]]:
        return [(t, start) for t in self.horizons for start in self.starts]

    def _meta_train(
        self, problem: StepSizeProblem, say: Callable[[str], None]
    ) -> dict[str, list[tuple[np.ndarray, int, int]]]:
        """What each method saw, case by case."""
        key, seen = jr.key(self.seed), {}
        for t, start in self._cases():
            say(f"{t} steps from a step size of {start:g}: {self.steps} meta-steps ...")
            for name, method in self.methods(Descent(problem), t).items():
                seen.setdefault(name, []).append(method.run(start, self.steps, key))
        return seen

    def _log_losses(self, problem: StepSizeProblem, best: np.ndarray) -> np.ndarray:
        """log F at the start and at the best: float32 ends at 88, and below -87."""
        log = lambda step, t: float(problem.loss(jnp.float32(step), t).log)
        cases = zip(self._cases(), best, strict=True)
        return np.array([[log(start, t), log(b, t)] for (t, start), b in cases])

    def methods(self, descent: Descent, t: int) -> dict[str, Method]:
        """Ways of learning the step size, by objective, recursion and estimator."""
        window = max(1, t // self.windows)
        return methods(descent, t, window, self.pairs, self.sigma)

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        return claims(data, self.tolerance)

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(2, 3))
        _draw_hardest(left, data)
        _draw_errors(right, data)


def _draw_hardest(axes: Any, data: Mapping[str, np.ndarray]) -> None:
    """The step sizes on the way, of the hardest case."""
    names, case = list(data["methods"]), hardest(data)
    shown = [n for n in names if "backprop" in n or "closed" in n]
    for name, style in zip(shown, ("-", "--", "-", "--", ":"), strict=True):
        path = np.maximum(data["step_size"][names.index(name), case], 1e-3)
        axes.plot(path / data["best_step_size"][case], style, label=name)
    t, start = data["cases"][case]
    axes.set(xlabel="meta-step", yscale="log", ylabel="step size / best one")
    axes.set_title(f"t = {t:.0f}, from {start:g}", fontsize=10)
    axes.legend(frameon=False, fontsize=7)


def _draw_errors(axes: Any, data: Mapping[str, np.ndarray]) -> None:
    """A table of methods by cases, in shades."""
    names, cases = data["methods"], data["cases"]
    error = np.nan_to_num(data["error"], nan=np.inf)
    shade = np.clip(np.log10(np.maximum(error, 1e-3)), -3, 0)
    axes.imshow(shade, cmap="Greys", aspect="auto", vmin=-3, vmax=1)
    zeros, bad = data["zero_gradients"], data["non_finite_gradients"]
    for i, j in np.ndindex(*error.shape):
        word = _error_and_marks(float(error[i, j]), bool(zeros[i, j]), bool(bad[i, j]))
        colour = "white" if shade[i, j] > -0.7 else "black"
        axes.text(j, i, word, color=colour, ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(cases)), [f"t = {t:.0f}\nfrom {s:g}" for t, s in cases])
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(labelsize=7)
    axes.set_title("distance from the best; zeros and NaNs met", fontsize=10)


def _error_and_marks(error: float, zeros: bool, bad: bool) -> str:
    word = f"{error:.1%}" if error < 10 else f"{error:.0f} x"
    mark = "0" if zeros else ""
    mark += " NaN" if bad else ""
    return f"{word}  {mark.strip()}".strip()
