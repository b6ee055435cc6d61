"""A learning-rate schedule on a rugged two-dimensional loss."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float

from .._estimators import (
    AbstractEstimator,
    FullES,
    NRES,
    PES,
    TruncatedBackprop,
    TruncatedES,
)
from .._smoothing import last_tenth
from .._unrolls import ConstantLength, RuggedRegression
from ._base import AbstractExperiment, Claim
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

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        unroll = RuggedRegression(self.length)
        axis = jnp.linspace(-7.0, 4.0, self.grid)
        points = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        surface = np.asarray(episode_loss(unroll, points)).reshape(self.grid, -1)
        data = {"axis": np.asarray(axis), "surface": surface}
        start = jnp.full(2, np.log(self.start))
        data["untrained loss"] = np.asarray(episode_loss(unroll, start[None])[0])
        for name, estimator in self.estimators().items():
            # A whole episode costs as much as all its windows.
            share = self.length // self.window if name == "full ES" else 1
            say(f"{name}: {self.steps // share} meta-steps ...")
            path = self._descend(unroll, estimator, start, share)
            # The schedule moves on within sigma of the optimum: the median says where.
            last = episode_loss(unroll, last_tenth(path.T).T)
            data[name] = np.asarray(path)
            data[f"{name} final loss"] = np.asarray(jnp.median(last))
        return data

    def _descend(
        self,
        unroll: RuggedRegression,
        estimator: AbstractEstimator,
        start: Float[Array, "2"],
        share: int,
    ) -> Float[Array, "steps 2"]:
        """The path of `share` times fewer steps, each so many times longer."""
        outer, steps = optax.adam(self.learning_rate * share), self.steps // share
        key = jr.key(self.seed)
        return meta_descent(unroll, estimator, start, outer, steps=steps, key=key)[0]

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        return [
            *(_comes_near(name, data) for name in ("PES", "NRES")),
            *(_stops_short(name, data) for name in ("truncated ES", "truncated backprop")),
        ]

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        axes, axis = figure.add_subplot(), data["axis"]
        values = np.log(data["surface"].T)
        mesh = axes.pcolormesh(axis, axis, values, cmap="Greys", shading="auto")
        for name in self.estimators():
            label = f"{name}: {data[f'{name} final loss']:.0f}"
            axes.plot(*data[name].T, label=label, linewidth=1.5)
        # Where all paths start.
        axes.plot(*data["PES"][0], "k*", markersize=10)
        axes.set(xlabel="theta_0: log of the first step size", ylabel="theta_1")
        figure.colorbar(mesh, ax=axes, label="log of the episode's loss")
        figure.legend(loc="outside right upper", frameon=False)


def _comes_near(name: str, data: Mapping[str, np.ndarray]) -> Claim:
    found, untrained = float(data[f"{name} final loss"]), float(data["untrained loss"])
    best = float(np.nanmin(data["surface"]))
    return Claim(
        f"{name} comes near the lowest loss on the grid",
        f"episode loss {found:.0f}; from {untrained:.0f}, lowest on the grid {best:.0f}",
        untrained - found > 0.9 * (untrained - best),
    )


def _stops_short(name: str, data: Mapping[str, np.ndarray]) -> Claim:
    found, of_pes = float(data[f"{name} final loss"]), float(data["PES final loss"])
    return Claim(
        f"{name} stops short of PES",
        f"episode loss {found:.0f} against {of_pes:.0f} of PES",
        found > 1.1 * of_pes,
    )
