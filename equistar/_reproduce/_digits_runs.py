"""Meta-training of several optimizers on digits, from several seeds, and what they do."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Float, PRNGKeyArray

from .._estimators import PES
from .._inner_training import InnerTraining, training_curves
from .._meta_training import default_outer, meta_train
from .._optimizers import AbstractOptimizer
from .._results import RESULTS
from .._smoothing import last_tenth
from .._unrolls import ConstantLength
from ..tasks import digits_mlp
from ._base import uninterrupted


class Contestant(eqx.Module):
    """An optimizer before its meta-training, and the weight decay of that.

    **Attributes:**

    - `make`: makes it from a key.
    - `decay`: the outer weight decay.
    """

    make: Callable[[PRNGKeyArray], AbstractOptimizer] = eqx.field(static=True)
    decay: float = eqx.field(static=True, default=0.1)


class DigitsRuns(eqx.Module):
    """How each contestant is meta-trained, and tried out.

    **Attributes:**

    - `steps`: meta-steps of PES, each a window of 50 inner steps.
    - `seeds`: meta-trainings of each contestant.
    - `length`: inner steps of an episode, the paper's 2,000 by default.
    - `learning_rate`: of the outer AdamW at the start of its cosine; at 1e-3 two of five
        meta-trainings of STAR end with optimizers that train nothing.
    - `beyond`: the networks that are trained afterwards are trained so many times longer.
    - `networks`: how many of these there are for each meta-training.
    """

    steps: int
    seeds: int
    length: int = 2000
    pairs: int = 8
    window: int = 50
    learning_rate: float = 3e-4
    beyond: int = 10
    networks: int = 3

    def __call__(
        self, contestants: Mapping[str, Contestant], say: Callable[[str], None]
    ) -> dict[str, np.ndarray]:
        """`"NAME meta"`, (seeds, steps), and `"NAME inner"`, (seeds * networks, inner
        steps), for every contestant."""
        data: dict[str, np.ndarray] = {}
        for name, contestant in contestants.items():
            meta, inner = [], []
            rate = optax.cosine_decay_schedule(self.learning_rate, self.steps, 0.05)
            outer = default_outer(rate, contestant.decay)
            for seed in range(self.seeds):
                result = uninterrupted(self._meta_train(contestant, outer, seed))
                losses = np.asarray(result.history.meta_loss)
                # One that failed keeps its last meta-loss.
                meta.append(np.pad(losses, (0, self.steps - len(losses)), mode="edge"))
                inner.append(self._inner(result.theta))
                failed = "" if result.result == RESULTS.successful else ", failed"
                say(
                    f"{name}, seed {seed}: meta-loss {_tail(losses):.4f}, "
                    f"training far beyond: {_tail(inner[-1].mean(0)):.4f}{failed}"
                )
            data[f"{name} meta"], data[f"{name} inner"] = (
                np.stack(meta),
                np.concatenate(inner),
            )
        return data

    def _meta_train(self, contestant: Contestant, outer, seed: int):
        theta_key, run_key = jr.split(jr.key(seed))
        length = ConstantLength(self.length)
        return meta_train(
            InnerTraining(digits_mlp()),
            PES(self.window, self.pairs, length=length),
            contestant.make(theta_key),
            outer,
            steps=self.steps,
            key=run_key,
            throw=False,
        )

    def _inner(self, theta: AbstractOptimizer) -> Float[np.ndarray, "networks steps"]:
        keys = jr.split(jr.key(0x1F), self.networks)
        steps = self.beyond * self.length
        return np.asarray(training_curves(digits_mlp(), theta, steps=steps, keys=keys))


def meta_loss(data: Mapping[str, np.ndarray], name: str) -> float:
    """The median over seeds of the mean meta-loss of the last tenth."""
    curves = data[f"{name} meta"]
    return float(np.median(last_tenth(curves).mean(1)))


def within(data: Mapping[str, np.ndarray], name: str, length: int) -> float:
    """The median over networks of the mean training loss up to `length`."""
    return median_loss(data[f"{name} inner"][:, :length])


def median_loss(curves: Float[np.ndarray, "networks steps"]) -> float:
    """The median over networks of the mean over steps; one that is not finite is the
    worst."""
    means = curves.mean(1)
    return float(np.median(np.where(np.isfinite(means), means, np.inf)))


def far_beyond(data: Mapping[str, np.ndarray], name: str) -> float:
    """The median over networks of the mean training loss of the last tenth; infinite
    where that is not finite."""
    return median_loss(last_tenth(data[f"{name} inner"]))


def stretches(curve: Float[np.ndarray, " n"], points: int = 100) -> tuple:
    """`(position, mean)` of stretches of a curve."""
    parts = np.array_split(np.asarray(curve, np.float64), min(points, len(curve)))
    ends = np.cumsum([len(p) for p in parts])
    return ends, np.array([p.mean() for p in parts])


def band(axes: Any, curves: Float[np.ndarray, "runs n"], label: str | None) -> None:
    """Draws the median of curves' stretches, and all that lies between them in a shade."""
    ends, _ = stretches(curves[0])
    means = np.stack([stretches(curve)[1] for curve in curves])
    (line,) = axes.plot(ends, np.median(means, 0), label=label)
    low, high = means.min(0), means.max(0)
    axes.fill_between(ends, low, high, color=line.get_color(), alpha=0.15, linewidth=0)


def _tail(curve: np.ndarray) -> float:
    return float(last_tenth(curve).mean())
