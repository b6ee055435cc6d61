"""A learning-rate schedule on a rugged two-dimensional loss."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from .._episodes import ConstantLength
from .._estimators import (
    AbstractEstimator,
    FullES,
    NRES,
    PES,
    TruncatedBackprop,
    TruncatedES,
)
from .._toy_unrolls import RuggedRegression
from ._base import AbstractExperiment, Claim, Reproduction
from ._meta_descent import meta_descent


@eqx.filter_jit
def episode_loss(
    unroll: RuggedRegression, theta: Float[Array, "n 2"]
) -> Float[Array, " n"]:
    """The sum of an episode's losses, for several `theta`."""

    def one(theta: Float[Array, "2"]) -> Float[Array, ""]:
        carry = unroll.init(theta, key=jr.key(0))
        body = lambda c, _: unroll.step(theta, c, key=jr.key(0))
        return jnp.sum(jax.lax.scan(body, carry, length=unroll.length)[1])

    return jax.vmap(one)(theta)


class LearningRateSchedule(AbstractExperiment):
    """Two-dimensional regression (PES paper): short horizons learn timid schedules."""

    length: int = 100
    window: int = 10
    sigma: float = 0.2
    particles: int = 128
    learning_rate: float = 0.02
    steps: int = 2000
    start: float = 0.01
    grid: int = 61
    seed: int = 0

    def full(self) -> "LearningRateSchedule":
        return dataclasses.replace(self, steps=5000, grid=121)

    def estimators(self) -> dict[str, AbstractEstimator]:
        """The estimators, as many particles each."""
        length, pairs = ConstantLength(self.length), self.particles // 2
        es = self.window, pairs, self.sigma, length
        return {
            "PES": PES(*es),
            "NRES": NRES(*es),
            "full ES": FullES(length, pairs, self.sigma),
            "truncated ES": TruncatedES(*es),
            "truncated backprop": TruncatedBackprop(self.window, self.particles, length),
        }

    def run(self, say: Callable[[str], None]) -> Reproduction:
        unroll = RuggedRegression(self.length)
        axis = jnp.linspace(-7.0, 4.0, self.grid)
        points = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        surface = np.asarray(episode_loss(unroll, points))
        data = {"axis": np.asarray(axis), "surface": surface.reshape(self.grid, -1)}
        theta, final = jnp.full(2, np.log(self.start)), {}
        for name, estimator in self.estimators().items():
            # A whole episode costs as much as all its windows.
            share = self.length // self.window if name == "full ES" else 1
            say(f"{name}: {self.steps // share} meta-steps ...")
            path, _ = meta_descent(
                unroll,
                estimator,
                theta,
                optax.adam(self.learning_rate * share),
                steps=self.steps // share,
                key=jr.key(self.seed),
            )
            data[name] = np.asarray(path)
            # The schedule moves on within sigma of the optimum: the median says where.
            last = episode_loss(unroll, path[-max(1, len(path) // 10) :])
            final[name] = float(jnp.median(last))
        best = float(np.nanmin(surface))
        untrained = float(episode_loss(unroll, theta[None])[0])
        text = lambda name: f"episode loss {final[name]:.0f}"
        gained = {name: untrained - value for name, value in final.items()}
        found = f"; from {untrained:.0f}, lowest on the grid {best:.0f}"
        claims = [
            Claim(
                f"{name} comes near the lowest loss on the grid",
                text(name) + found,
                gained[name] > 0.9 * (untrained - best),
            )
            for name in ("PES", "NRES")
        ] + [
            Claim(
                f"{name} stops short of PES",
                f"{text(name)} against {final['PES']:.0f} of PES",
                final[name] > 1.1 * final["PES"],
            )
            for name in ("truncated ES", "truncated backprop")
        ]

        def draw(figure: Any) -> None:
            axes = figure.add_subplot()
            values = np.log(data["surface"].T)
            mesh = axes.pcolormesh(axis, axis, values, cmap="Greys", shading="auto")
            for name in self.estimators():
                axes.plot(*data[name].T, label=f"{name}: {final[name]:.0f}", linewidth=1.5)
            axes.plot(*np.asarray(theta), "k*", markersize=10)
            axes.set(xlabel="theta_0: log of the first step size", ylabel="theta_1")
            figure.colorbar(mesh, ax=axes, label="log of the episode's loss")
            figure.legend(loc="outside right upper", frameon=False)

        return Reproduction(data, draw, claims)
