"""The joint spectral radius along training, of Adam and of learned optimizers."""

import dataclasses
from collections.abc import Callable
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
from ._base import AbstractExperiment, Claim, Reproduction


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

    def run(self, say: Callable[[str], None]) -> Reproduction:
        key = jr.key(self.seed)
        optimizers: dict[str, AbstractOptimizer] = {
            f"Adam {self.adam_rate:g}": OptaxOptimizer(
                optax.adam, learning_rate=self.adam_rate
            ),
            "STAR": STAR(key=key),
            "Blackbox": Blackbox(key=key),
            "HyperparamController": HyperparamController(key=key),
        }
        task, spectra = digits_mlp(), {}
        for name, optimizer in optimizers.items():
            say(f"{name}: spectra at steps {', '.join(map(str, self.steps))} ...")
            spectra[name] = spectrum_along_training(
                task,
                optimizer,
                self.steps,
                number=self.number,
                batches=self.batches,
                key=key,
            )
        data = {"steps": np.array(self.steps)}
        for name, row in spectra.items():
            data[f"{name} rho"] = np.array([s.radius for s in row])
            data[f"{name} cost"] = np.array([s.cost for s in row])
            data[f"{name} in params"] = np.array([s.params_share[0] for s in row])
        everything = [s for row in spectra.values() for s in row]
        found = [s.converged for s in everything]
        missed = ", ".join(
            f"{name} at step {step}"
            for name, row in spectra.items()
            for step, s in zip(self.steps, row, strict=False)
            if not s.converged
        )
        cost = np.array([s.cost for s in everything])
        radii = ", ".join(
            f"{name} {row[0].radius:.3f} to {row[-1].radius:.3f}"
            for name, row in spectra.items()
        )
        claims = [
            Claim(
                "the leading eigenvalues are found, in float32, by products alone",
                f"{sum(found)} of {len(found)} spectra converged; not: {missed or 'none'}; "
                f"rho: {radii}",
                all(found),
            ),
            Claim(
                "a spectrum costs a few dozen products, so some hundreds of training steps",
                f"{cost.min():.0f} to {cost.max():.0f} training steps, median "
                f"{np.median(cost):.0f}",
                bool(np.median(cost) < 2000),
            ),
        ]

        def draw(figure: Any) -> None:
            left, right = figure.subplots(1, 2)
            for name in spectra:
                at = self.steps[: len(data[f"{name} rho"])]
                left.plot(at, data[f"{name} rho"], marker="o", label=name)
                right.plot(at, data[f"{name} in params"], marker="o")
            left.axhline(1, color="grey", linewidth=0.8)
            left.set(xlabel="step", xscale="symlog", title="rho, joint spectral radius")
            right.set(xlabel="step", xscale="symlog", ylim=(-0.05, 1.05))
            right.set_title("share of the leading direction in the parameters")
            figure.legend(loc="outside lower center", ncols=4, frameon=False)

        return Reproduction(data, draw, claims)
