"""Cancelling the nominal term against controlling its magnitude."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._eigh import eigh
from ..analysis import disturbed_margin, star_quadratic
from ._base import AbstractExperiment, Claim, Reproduction


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

    def run(self, say: Callable[[str], None]) -> Reproduction:
        hessian = star_quadratic().hessian
        n = len(hessian)
        alpha = self.share * 2 / eigh(hessian)[0][-1]
        say(f"{self.draws} disturbances of each of {self.points} sizes ...")
        dmax = jnp.linspace(1.0, self.worst, self.points)
        eye, zero = jnp.eye(n), jnp.zeros((n, n))
        draws = 1 - jr.uniform(jr.key(0), (self.draws, 1))

        def margins(nominal: Any, matrix: Any) -> tuple[np.ndarray, np.ndarray]:
            def one(bound: Any, share: Any):
                spread = lambda x: jnp.broadcast_to(x, (n,))
                d = spread(bound * share)
                return disturbed_margin(hessian, nominal, matrix, d, spread(bound))

            # The largest disturbance itself is among those tried.
            shares = jnp.concatenate([jnp.ones((1, 1)), draws])
            of_draws = jax.vmap(one, in_axes=(None, 0))
            found = jax.jit(jax.vmap(of_draws, in_axes=(0, None)))(dmax, shares)
            return np.asarray(found.sufficient[:, 0]), np.asarray(found.exact.min(1))

        cancelled = margins(alpha, -(1 - self.kept) * alpha * eye)
        controlled = margins(self.kept * alpha, zero)
        unstable = np.asarray(dmax)[cancelled[1] < 0]
        turns = 1 / (1 - self.kept)
        first = unstable[0] if len(unstable) else np.inf
        claims = [
            Claim(
                "undisturbed, both are the same optimizer, with the same exact margin",
                f"{cancelled[1][0]:.4f} and {controlled[1][0]:.4f}",
                bool(abs(cancelled[1][0] - controlled[1][0]) < 1e-5),
            ),
            Claim(
                f"cancelling turns unstable at a factor of {turns:.3f}",
                f"first seen at {first:.3f}; margin {cancelled[1][-1]:.3f} at {self.worst}",
                bool(turns <= first <= turns + 2 * (self.worst - 1) / (self.points - 1)),
            ),
            Claim(
                "controlling the magnitude keeps its margin under every disturbance",
                f"{controlled[1].min():.4f} to {controlled[1].max():.4f}",
                bool(np.ptp(controlled[1]) < 1e-6 and controlled[1].min() > 0),
            ),
        ]
        data = {
            "largest_factor": np.asarray(dmax),
            "cancelled_sufficient": cancelled[0],
            "cancelled_exact": cancelled[1],
            "controlled_sufficient": controlled[0],
            "controlled_exact": controlled[1],
        }

        def draw(figure: Any) -> None:
            axes = figure.add_subplot()
            axes.plot(dmax, cancelled[1], "C3", label="cancelled: P = -.9 alpha I")
            axes.plot(dmax, controlled[1], "C0", label="controlled: nominal step .1 alpha")
            axes.plot(dmax, cancelled[0], "C3--", label="Lemma 3's bound, cancelled")
            axes.axhline(0, color="grey", linewidth=0.8)
            axes.set(xlabel="largest factor of the disturbance", ylabel="stability margin")
            figure.legend(loc="outside right upper", frameon=False)

        return Reproduction(data, draw, claims)
