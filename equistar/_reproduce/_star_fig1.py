"""Which intervention brings which eigenvalues into the unit circle."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np

from ._base import AbstractExperiment, Claim


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

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        say(f"{self.seeds} random learned optimizers of {self.size} parameters ...")
        drawn = [self.transitions(seed) for seed in range(self.seeds)]
        return {
            name: np.stack([np.linalg.eigvals(d[name]) for d in drawn]) for name in drawn[0]
        }

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        inside = {name: _inside(values) for name, values in data.items()}
        text = lambda name: _inside_and_radius(data[name])
        return [
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
            _weight_decay_contracts(data["none"], data["weight decay"]),
            _preconditioner_evens_out(data["none"], data["preconditioner"]),
            Claim(
                "all three together bring every eigenvalue inside",
                text("all three"),
                inside["all three"] == 1,
            ),
        ]

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
        panels = figure.subplots(1, len(data), sharex=True, sharey=True)
        for axes, (name, values) in zip(panels, data.items(), strict=True):
            axes.plot(np.real(circle), np.imag(circle), color="grey", linewidth=0.8)
            x, y = np.real(values).ravel(), np.imag(values).ravel()
            axes.plot(x, y, ".", markersize=2, alpha=0.5)
            axes.set_title(f"{name}\n{_inside(values):.0%} inside", fontsize=9)
            axes.set_aspect("equal")


def _inside(eigenvalues: np.ndarray) -> np.floating:
    return np.mean(np.abs(eigenvalues) <= 1 + 1e-9)


def _mean_radius(eigenvalues: np.ndarray) -> np.floating:
    return np.abs(eigenvalues).max(1).mean()


def _inside_and_radius(eigenvalues: np.ndarray) -> str:
    radius = _mean_radius(eigenvalues)
    return f"{_inside(eigenvalues):.0%} inside, mean radius {radius:.3f}"


def _weight_decay_contracts(none: np.ndarray, decayed: np.ndarray) -> Claim:
    before, after = _mean_radius(none) - 1, _mean_radius(decayed) - 1
    return Claim(
        "weight decay contracts them towards 1: as many outside, but nearer",
        f"{_inside_and_radius(decayed)}; radius - 1 from {before:.3f} to {after:.3f}",
        abs(_inside(decayed) - _inside(none)) < 0.1 and after < 0.6 * before,
    )


def _preconditioner_evens_out(none: np.ndarray, preconditioned: np.ndarray) -> Claim:
    # Curvature counts: where it is high, a preconditioner moves eigenvalues by less
    # than the plain optimizer, where it is low by more.
    before, after = np.abs(1 - none), np.abs(1 - preconditioned)
    return Claim(
        "the preconditioner evens out directions of different curvature; alone it "
        "brings none inside",
        f"{_inside_and_radius(preconditioned)}; median distance from 1 goes from "
        f"{np.median(before):.3f} to {np.median(after):.3f}, the largest from "
        f"{before.max():.2f} to {after.max():.2f}",
        np.median(after) > 2 * np.median(before)
        and _inside(preconditioned) < _inside(none) + 0.1,
    )
