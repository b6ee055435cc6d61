"""Cancelling the nominal term against controlling its magnitude."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._eigh import eigh
from ..analysis import disturbed_margin, Margin, star_quadratic
from ._base import AbstractExperiment, Claim


class Cancellation(AbstractExperiment):
    """STAR, section 4.3: cancelling the nominal term costs margin, controlling it does not.

    Both optimizers step with a tenth of the nominal step: one by a matrix
    P = -.9 alpha I, one by a nominal step of .1 alpha. Then P is disturbed by a factor
    d of each direction, d at most d_max.
    """

    share: float = 0.5
    kept: float = 0.1
    worst: float = 3.0
    draws: int = 500
    points: int = 41

    def full(self) -> "Cancellation":
        return dataclasses.replace(self, draws=20_000)

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        hessian = star_quadratic().hessian
        n = len(hessian)
        alpha = self.share * 2 / eigh(hessian)[0][-1]
        say(f"{self.draws} disturbances of each of {self.points} sizes ...")
        largest = jnp.linspace(1.0, self.worst, self.points)
        # The largest disturbance itself is among those tried.
        draws = 1 - jr.uniform(jr.key(0), (self.draws, 1))
        shares = jnp.concatenate([jnp.ones((1, 1)), draws])
        optimizers = {
            "cancelled": (alpha, -(1 - self.kept) * alpha * jnp.eye(n)),
            "controlled": (self.kept * alpha, jnp.zeros((n, n))),
        }
        data = {"largest_factor": np.asarray(largest)}
        for name, (nominal, matrix) in optimizers.items():
            found = _margins(hessian, nominal, matrix, largest, shares)
            data[f"{name}_sufficient"] = np.asarray(found.sufficient[:, 0])
            data[f"{name}_exact"] = np.asarray(found.exact.min(1))
        return data

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        cancelled, controlled = data["cancelled_exact"], data["controlled_exact"]
        return [
            Claim(
                "undisturbed, both are the same optimizer, with the same exact margin",
                f"{cancelled[0]:.4f} and {controlled[0]:.4f}",
                bool(abs(cancelled[0] - controlled[0]) < 1e-5),
            ),
            self._cancelling_turns_unstable(data["largest_factor"], cancelled),
            Claim(
                "controlling the magnitude keeps its margin under every disturbance",
                f"{controlled.min():.4f} to {controlled.max():.4f}",
                bool(np.ptp(controlled) < 1e-6 and controlled.min() > 0),
            ),
        ]

    def _cancelling_turns_unstable(self, largest: np.ndarray, margin: np.ndarray) -> Claim:
        unstable = largest[margin < 0]
        first = unstable[0] if len(unstable) else np.inf
        turns, spacing = 1 / (1 - self.kept), (self.worst - 1) / (self.points - 1)
        return Claim(
            f"cancelling turns unstable at a factor of {turns:.3f}",
            f"first seen at {first:.3f}; margin {margin[-1]:.3f} at {self.worst}",
            bool(turns <= first <= turns + 2 * spacing),
        )

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        axes = figure.add_subplot()
        for name, style, label in (
            ("cancelled_exact", "C3", "cancelled: P = -.9 alpha I"),
            ("controlled_exact", "C0", "controlled: nominal step .1 alpha"),
            ("cancelled_sufficient", "C3--", "Lemma 3's bound, cancelled"),
        ):
            axes.plot(data["largest_factor"], data[name], style, label=label)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set(xlabel="largest factor of the disturbance", ylabel="stability margin")
        figure.legend(loc="outside right upper", frameon=False)


@jax.jit
def _margins(
    hessian: Float[Array, "n n"],
    nominal: Float[Array, ""],
    matrix: Float[Array, "n n"],
    largest: Float[Array, " sizes"],
    shares: Float[Array, "draws 1"],
) -> Margin:
    """Margins under disturbances by shares of the largest factor, (sizes, draws) each."""

    def one(bound: Float[Array, ""], share: Float[Array, "1"]) -> Margin:
        spread = lambda x: jnp.broadcast_to(x, (len(hessian),))
        d = spread(bound * share)
        return disturbed_margin(hessian, nominal, matrix, d, spread(bound))

    of_draws = jax.vmap(one, in_axes=(None, 0))
    return jax.vmap(of_draws, in_axes=(0, None))(largest, shares)
