"""Influence balancing: where truncation steps the wrong way."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from .._episodes import ConstantLength, LockStep
from .._estimators import (
    AbstractEstimator,
    ForwardGradient,
    NRES,
    PES,
    TruncatedBackprop,
    TruncatedES,
)
from .._toy_unrolls import InfluenceBalancing
from ._base import AbstractExperiment, Claim, Reproduction
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

    def run(self, say: Callable[[str], None]) -> Reproduction:
        unroll = InfluenceBalancing(self.states, self.positive)
        best = 1 / unroll.steady
        theta = jnp.full(1, self.start)
        outer = optax.sgd(self.learning_rate)
        data = {}
        for name, estimator in self.estimators().items():
            say(f"{name}: {self.steps} steps ...")
            path, _ = meta_descent(
                unroll, estimator, theta, outer, steps=self.steps, key=jr.key(self.seed)
            )
            data[name] = np.asarray(path[:, 0])
        loss = {k: 0.5 * (unroll.steady * v - 1) ** 2 for k, v in data.items()}
        claims = [
            Claim(
                f"{name} converges to the optimum {best:.4f}",
                f"theta ends at {data[name][-1]:.4f}, from {self.start}",
                abs(data[name][-1] - best) < 0.05 * abs(self.start - best),
            )
            for name in ("PES", "NRES", "forward mode, exact")
        ] + [
            Claim(
                f"{name} goes the wrong way",
                f"theta ends at {data[name][-1]:.4f}; steady-state loss from "
                f"{loss[name][0]:.3g} to {loss[name][-1]:.3g}",
                bool(data[name][-1] > self.start and loss[name][-1] > loss[name][0]),
            )
            for name in ("truncated ES", "truncated backprop")
        ]

        def draw(figure: Any) -> None:
            left, right = figure.subplots(1, 2)
            for name, path in data.items():
                left.plot(path, label=name)
                right.plot(np.maximum(loss[name], 1e-8))
            left.axhline(best, color="grey", linestyle=":", label="optimum")
            left.set(xlabel="meta-step", title="theta", ylim=(-0.6, 1.6))
            right.set(xlabel="meta-step", yscale="log", title="loss in the steady state")
            figure.legend(loc="outside right center", frameon=False)

        return Reproduction(data, draw, claims)
