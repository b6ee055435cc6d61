"""Which intervention brings which eigenvalues into the unit circle."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ._base import AbstractExperiment, Claim, Reproduction


class EigenvaluesAfterInterventions(AbstractExperiment):
    """STAR, figure 1: eigenvalues before and after each of its three interventions.

    An untrained learned optimizer is a random matrix P, so phi' = (I - P H) phi has its
    eigenvalues on both sides of the unit circle. A nominal term adds alpha I to P; weight
    decay shrinks P; a preconditioner puts the inverse root of H before it.
    """

    size: int = 30
    condition: float = 100.0
    scale: float = 1.0
    nominal: float = 1.0
    decay: float = 0.3
    seeds: int = 20

    def full(self) -> "EigenvaluesAfterInterventions":
        return dataclasses.replace(self, seeds=500)

    def transitions(self, seed: int) -> dict[str, np.ndarray]:
        """The transition matrix under each intervention, largest curvature 1."""
        rotation_key, matrix_key = jr.split(jr.key(seed))
        n = self.size
        q, _ = jnp.linalg.qr(jr.normal(rotation_key, (n, n)))
        values = np.asarray(jnp.logspace(-jnp.log10(self.condition), 0.0, n))
        q = np.asarray(q, np.float64)
        h, root = (q * values) @ q.T, (q / np.sqrt(values)) @ q.T
        # The circular law: eigenvalues of P fill the disc of radius `scale`.
        p = np.asarray(jr.normal(matrix_key, (n, n)), np.float64)
        p = p * self.scale / np.sqrt(n)
        eye = np.eye(n)
        return {
            "none": eye - p @ h,
            "nominal term": eye - (self.nominal * eye + p) @ h,
            "weight decay": eye - self.decay * p @ h,
            "preconditioner": eye - root @ p @ h,
            "all three": eye - root @ (self.nominal * eye + self.decay * p) @ h,
        }

    def run(self, say: Callable[[str], None]) -> Reproduction:
        say(f"{self.seeds} random learned optimizers of {self.size} parameters ...")
        drawn = [self.transitions(seed) for seed in range(self.seeds)]
        data = {
            name: np.stack([np.linalg.eigvals(d[name]) for d in drawn]) for name in drawn[0]
        }
        inside = {k: np.mean(np.abs(v) <= 1 + 1e-9) for k, v in data.items()}
        radius = {k: np.abs(v).max(1).mean() for k, v in data.items()}
        excess = {k: radius[k] - 1 for k in radius}
        # Curvature counts: where it is high, a preconditioner moves eigenvalues by less
        # than the plain optimizer, where it is low by more.
        flat = {k: np.median(np.abs(1 - v)) for k, v in data.items()}
        text = lambda k: f"{inside[k]:.0%} inside, mean radius {radius[k]:.3f}"
        claims = [
            Claim(
                "without intervention about half of the eigenvalues are outside",
                text("none"),
                0.3 < inside["none"] < 0.7,
            ),
            Claim(
                "the nominal term shifts eigenvalues into the circle",
                text("nominal term"),
                inside["nominal term"] > inside["none"] + 0.2,
            ),
            Claim(
                "weight decay contracts them towards 1: as many outside, but nearer",
                f"{text('weight decay')}; radius - 1 from {excess['none']:.3f} to "
                f"{excess['weight decay']:.3f}",
                abs(inside["weight decay"] - inside["none"]) < 0.1
                and excess["weight decay"] < 0.6 * excess["none"],
            ),
            Claim(
                "the preconditioner evens out directions of different curvature; alone it "
                "brings none inside",
                f"{text('preconditioner')}; median distance from 1 goes from "
                f"{flat['none']:.3f} to {flat['preconditioner']:.3f}, the largest from "
                f"{np.abs(1 - data['none']).max():.2f} to "
                f"{np.abs(1 - data['preconditioner']).max():.2f}",
                flat["preconditioner"] > 2 * flat["none"]
                and inside["preconditioner"] < inside["none"] + 0.1,
            ),
            Claim(
                "all three together bring every eigenvalue inside",
                text("all three"),
                inside["all three"] == 1,
            ),
        ]

        def draw(figure: Any) -> None:
            circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
            panels = figure.subplots(1, len(data), sharex=True, sharey=True)
            for axes, (name, values) in zip(panels, data.items(), strict=True):
                axes.plot(np.real(circle), np.imag(circle), color="grey", linewidth=0.8)
                x, y = np.real(values).ravel(), np.imag(values).ravel()
                axes.plot(x, y, ".", markersize=2, alpha=0.5)
                axes.set_title(f"{name}\n{inside[name]:.0%} inside", fontsize=9)
                axes.set_aspect("equal")

        return Reproduction(data, draw, claims)
