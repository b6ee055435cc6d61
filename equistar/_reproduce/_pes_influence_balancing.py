"""Influence balancing: where truncation steps the wrong way."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .._episodes import ConstantLength, LockStep
from .._estimators import (
    AbstractEstimator,
    ForwardGradient,
    NRES,
    PES,
    TruncatedBackprop,
    TruncatedES,
)
from .._unroll import AbstractUnroll
from ._base import AbstractExperiment, Claim, Reproduction
from ._meta_descent import meta_descent


class Influence(AbstractUnroll):
    """$s' = A s + \\theta b$ with the loss $\\frac12 (s_0 - 1)^2$.

    A has 1/2 on its diagonal and superdiagonal; b is 1 in its first `positive` entries
    and -1 in the others. In the steady state $s_0 = 2 \\theta \\sum b$, so the sign of the
    long-term influence of $\\theta$ on $s_0$ is that of $\\sum b$, while the first step's
    is positive.
    """

    states: int = eqx.field(static=True)
    positive: int = eqx.field(static=True)

    @property
    def steady(self) -> float:
        """$s_0 / \\theta$ in the steady state."""
        return 2.0 * (2 * self.positive - self.states)

    def init(self, theta: Float[Array, "1"], *, key: PRNGKeyArray) -> Float[Array, " n"]:
        return jnp.zeros(self.states, theta.dtype)

    def step(
        self, theta: Float[Array, "1"], carry: Float[Array, " n"], *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " n"], Float[Array, ""]]:
        above = jnp.concatenate([carry[1:], jnp.zeros(1, carry.dtype)])
        signs = jnp.where(jnp.arange(self.states) < self.positive, theta, -theta)
        carry = 0.5 * (carry + above) + signs
        # The loss after the step: with windows of one, truncation sees that step alone.
        return carry, 0.5 * (carry[0] - 1) ** 2


class InfluenceBalancing(AbstractExperiment):
    """Influence balancing (PES paper): truncation goes the wrong way, PES does not."""

    states: int = 23
    positive: int = 10
    start: float = 0.5
    particles: int = 1000
    sigma: float = 0.1
    learning_rate: float = 1e-4
    steps: int = 3000
    seed: int = 0

    def full(self) -> "InfluenceBalancing":
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
        unroll = Influence(self.states, self.positive)
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
