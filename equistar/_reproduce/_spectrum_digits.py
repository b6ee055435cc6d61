"""The joint spectral radius along training, of Adam and of learned optimizers."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.random as jr
import numpy as np
import optax

from .._optimizers import (
    AbstractOptimizer,
    Blackbox,
    HyperparamController,
    OptaxOptimizer,
    STAR,
)
from ..analysis import spectrum_along_training
from ..tasks import digits_mlp
from ._base import AbstractExperiment, Claim


class SpectrumOnDigits(AbstractExperiment):
    """The joint spectral radius along training of a digits MLP, by optimizer.

    The learned optimizers are as they start meta-training, not meta-trained; for weights
    of your own: `equistar stability WEIGHTS`.
    """

    steps: tuple[int, ...] = (0, 30, 300)
    number: int = 2
    batches: int = 4
    adam_rate: float = 0.01
    seed: int = 0

    def full(self) -> "SpectrumOnDigits":
        return dataclasses.replace(self, steps=(0, 10, 30, 100, 300, 1000, 3000), number=6)

    def optimizers(self) -> dict[str, AbstractOptimizer]:
        """Adam, and learned optimizers as they start meta-training."""
        adam = OptaxOptimizer(optax.adam, learning_rate=self.adam_rate)
        key = jr.key(self.seed)
        return {
            f"Adam {self.adam_rate:g}": adam,
            "STAR": STAR(key=key),
            "Blackbox": Blackbox(key=key),
            "HyperparamController": HyperparamController(key=key),
        }

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        task, data = digits_mlp(), {"steps": np.array(self.steps)}
        settings = {"number": self.number, "batches": self.batches}
        for name, optimizer in self.optimizers().items():
            say(f"{name}: spectra at steps {', '.join(map(str, self.steps))} ...")
            row = spectrum_along_training(
                task, optimizer, self.steps, key=jr.key(self.seed), **settings
            )
            data[f"{name} rho"] = np.array([s.radius for s in row])
            data[f"{name} products"] = np.array([s.products for s in row])
            data[f"{name} cost"] = np.array([s.cost for s in row])
            data[f"{name} in params"] = np.array([s.params_share[0] for s in row])
            data[f"{name} converged"] = np.array([s.converged for s in row])
        return data

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        return [_spectra_are_found(data), _spectra_are_cheap(data)]

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        left, right = figure.subplots(1, 2)
        for name in _names(data):
            at = data["steps"][: len(data[f"{name} rho"])]
            left.plot(at, data[f"{name} rho"], marker="o", label=name)
            right.plot(at, data[f"{name} in params"], marker="o")
        left.axhline(1, color="grey", linewidth=0.8)
        left.set(xlabel="step", xscale="symlog", title="rho, joint spectral radius")
        right.set(xlabel="step", xscale="symlog", ylim=(-0.05, 1.05))
        right.set_title("share of the leading direction in the parameters")
        figure.legend(loc="outside lower center", ncols=4, frameon=False)


def _names(data: Mapping[str, np.ndarray]) -> list[str]:
    return [key.removesuffix(" rho") for key in data if key.endswith(" rho")]


def _spectra_are_found(data: Mapping[str, np.ndarray]) -> Claim:
    rho = {name: data[f"{name} rho"] for name in _names(data)}
    found = {name: data[f"{name} converged"] for name in rho}
    missed = ", ".join(
        f"{name} at step {step}"
        for name, row in found.items()
        # Training that comes apart has fewer spectra.
        for step, converged in zip(data["steps"], row, strict=False)
        if not converged
    )
    radii = ", ".join(f"{name} {row[0]:.3f} to {row[-1]:.3f}" for name, row in rho.items())
    every = np.concatenate(list(found.values()))
    return Claim(
        "the leading eigenvalues are found, in float32, by products alone",
        f"{every.sum()} of {len(every)} spectra converged; not: {missed or 'none'}; "
        f"rho: {radii}",
        bool(every.all()),
    )


def _spectra_are_cheap(data: Mapping[str, np.ndarray]) -> Claim:
    both = [
        np.concatenate([data[f"{name} {kind}"] for name in _names(data)])
        for kind in ("products", "cost")
    ]
    ranges = [f"{x.min():.0f} to {x.max():.0f}" for x in both]
    medians = [np.median(x) for x in both]
    return Claim(
        "a spectrum costs at most some hundreds of products, and of training steps",
        f"{ranges[0]} products, median {medians[0]:.0f}; {ranges[1]} training steps, "
        f"median {medians[1]:.0f}",
        bool(max(medians) < 500 and max(x.max() for x in both) < 1000),
    )
