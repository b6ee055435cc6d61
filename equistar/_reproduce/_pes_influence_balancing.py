"""Influence balancing: where truncation steps the wrong way."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from .._estimators import (
    AbstractEstimator,
    ForwardGradient,
    NRES,
    PES,
    TruncatedBackprop,
    TruncatedES,
)
from .._unrolls import ConstantLength, InfluenceBalancing, LockStep
from ._base import AbstractExperiment, Claim
from ._meta_descent import meta_descent


class InfluenceExperiment(AbstractExperiment):
    """Influence balancing (PES paper): truncation goes the wrong way, PES does not."""

    states: int = 23
    positive: int = 10
    start: float = 0.5
    particles: int = 1000
    sigma: float = 0.1
    learning_rate: float = 1e-4
    steps: int = 3000
    seed: int = 0

    def full(self) -> "InfluenceExperiment":
        return self

    def estimators(self) -> dict[str, AbstractEstimator]:
        """The estimators, with windows of one step in one long episode."""
        length, starts = ConstantLength(self.steps), LockStep()
        es = 1, self.particles // 2, self.sigma, length, starts
        return {
            "PES": PES(*es),
            "NRES": NRES(*es),
            "truncated ES": TruncatedES(*es),
            "truncated backprop": TruncatedBackprop(1, 1, length, starts),
            "forward mode, exact": ForwardGradient(1, 1, length=length, starts=starts),
        }

    def unroll(self) -> InfluenceBalancing:
        """The problem, whose `theta` is best at 1 / `steady`."""
        return InfluenceBalancing(self.states, self.positive)

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        theta, outer = jnp.full(1, self.start), optax.sgd(self.learning_rate)
        settings = {"steps": self.steps, "key": jr.key(self.seed)}
        data = {}
        for name, estimator in self.estimators().items():
            say(f"{name}: {self.steps} steps ...")
            path, _ = meta_descent(self.unroll(), estimator, theta, outer, **settings)
            data[name] = np.asarray(path[:, 0])
        return data

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        right = "PES", "NRES", "forward mode, exact"
        wrong = "truncated ES", "truncated backprop"
        return [
            *(self._converges(name, data[name]) for name in right),
            *(self._goes_the_wrong_way(name, data[name]) for name in wrong),
        ]

    def _converges(self, name: str, path: np.ndarray) -> Claim:
        best = 1 / self.unroll().steady
        return Claim(
            f"{name} converges to the optimum {best:.4f}",
            f"theta ends at {path[-1]:.4f}, from {self.start}",
            abs(path[-1] - best) < 0.05 * abs(self.start - best),
        )

    def _goes_the_wrong_way(self, name: str, path: np.ndarray) -> Claim:
        loss = self._steady_loss(path)
        return Claim(
            f"{name} goes the wrong way",
            f"theta ends at {path[-1]:.4f}; steady-state loss from "
            f"{loss[0]:.3g} to {loss[-1]:.3g}",
            bool(path[-1] > self.start and loss[-1] > loss[0]),
        )

    def _steady_loss(self, path: np.ndarray) -> np.ndarray:
        return 0.5 * (self.unroll().steady * path - 1) ** 2

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        left, right = figure.subplots(1, 2)
        for name, path in data.items():
            left.plot(path, label=name)
            right.plot(np.maximum(self._steady_loss(path), 1e-8))
        best = 1 / self.unroll().steady
        left.axhline(best, color="grey", linestyle=":", label="optimum")
        left.set(xlabel="meta-step", title="theta", ylim=(-0.6, 1.6))
        right.set(xlabel="meta-step", yscale="log", title="loss in the steady state")
        figure.legend(loc="outside right center", frameon=False)
