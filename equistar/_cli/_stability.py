"""`equistar stability`."""

import math
import pathlib
from dataclasses import dataclass
from typing import Annotated

import jax.random as jr
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.table import Table

from .. import tasks
from .._files import write_npz_atomically
from .._optimizers import AbstractOptimizer, OptaxOptimizer, Scaled
from .._serialisation import load, weights_path
from ..analysis import invariances, JointSpectrum, spectrum_along_training
from ..plot import as_label, save_figure
from ._output import check_seed, check_task, CommandError, console, output_folder


@dataclass
class Stability:
    """Say how stable training with an optimizer from a weights file is.

    Trains a fresh network with it, and beside it with Adam, and computes at chosen steps
    the leading eigenvalues of the training step, linearised jointly in the parameters
    and the optimizer's state. rho, the largest magnitude, above 1 says that small
    disturbances grow there. Then it measures what the update does not depend on. Writes
    spectrum.png and spectrum.npz into the output folder.
    """

    weights: Annotated[pathlib.Path, tyro.conf.Positional]
    """The file that `equistar meta-train` or `equistar.save` wrote, or the name of a
    pretrained optimizer (`equistar info` lists them)."""
    task: str = "digits_mlp"
    """The task's name; a wrong one lists the right ones."""
    steps: tuple[int, ...] = (0, 10, 100, 500)
    """Updates after which the spectrum is computed, increasing."""
    number: int = 4
    """Leading eigenvalues to compute."""
    batches: int = 4
    """Minibatches whose mean loss is linearised."""
    learning_rate: float = 1.0
    """A factor on every update of the weights' optimizer; 1 is its own choice."""
    adam_rate: float = 0.01
    """The learning rate of Adam beside it."""
    seed: int = 0
    """Of the initial parameters and the minibatches."""
    output: pathlib.Path = pathlib.Path("equistar-stability")
    """The folder to write into; made if it is not there."""
    overwrite: bool = False
    """Replace what is in the output folder."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        self._check()
        name, other = self.weights.name, f"Adam {self.adam_rate:g}"
        if name == other:
            raise CommandError(f"A weights file cannot be called '{name}': rename it.")
        optimizer = Scaled(load(weights_path(self.weights)), self.learning_rate)
        adam = OptaxOptimizer(optax.adam, learning_rate=self.adam_rate)
        out = console()
        with output_folder(self.output, self.overwrite) as folder:
            spectra = self._spectra({name: optimizer, other: adam}, out)
            # Before more is printed: what is printed into may be gone.
            _write(folder, self.steps, spectra)
        out.print(_table(self.task, self.steps, spectra))
        out.print(f"{name}: compiling, then what an update does not depend on ...")
        out.print(invariances(optimizer, key=jr.key(self.seed)).table())
        out.print(f"Spectra: {folder / 'spectrum.png'} and {folder / 'spectrum.npz'}")
        diverged = [label for label, row in spectra.items() if len(row) < len(self.steps)]
        for label in diverged:
            step = self.steps[len(spectra[label])]
            out.print(f"{label}: training diverged before step {step}.")
        return 1 if diverged else 0

    def _check(self) -> None:
        if not self.steps or list(self.steps) != sorted(set(self.steps)):
            raise CommandError("--steps must be increasing numbers, say --steps 0 10 100.")
        if self.steps[-1] >= 2**31:
            raise CommandError(f"--steps must be below 2**31; got {self.steps[-1]}.")
        if min(self.steps) < 0 or self.number < 1 or self.batches < 1:
            raise CommandError(
                "--number and --batches must be at least 1, and --steps at least 0."
            )
        if not all(0 < x < math.inf for x in (self.adam_rate, self.learning_rate)):
            raise CommandError("--adam-rate and --learning-rate must be positive numbers.")
        check_task(self.task)
        check_seed(self.seed)

    def _spectra(
        self, optimizers: dict[str, AbstractOptimizer], out: Console
    ) -> dict[str, list[JointSpectrum]]:
        task, spectra = tasks.named(self.task), {}
        steps = ", ".join(map(str, self.steps))
        for label, optimizer in optimizers.items():
            out.print(f"{label}: compiling, then spectra at steps {steps} ...")
            spectra[label] = spectrum_along_training(
                task,
                optimizer,
                self.steps,
                number=self.number,
                batches=self.batches,
                key=jr.key(self.seed),
            )
        return spectra


def _table(
    task: str, steps: tuple[int, ...], spectra: dict[str, list[JointSpectrum]]
) -> Table:
    table = Table(title=f"Joint spectrum of parameters and state on {task}")
    table.add_column("optimizer")
    headings = "step", "rho", "outside", "in params", "cost in steps"
    for heading in headings:
        table.add_column(heading, justify="right")
    for label, row in spectra.items():
        for step, s in zip(steps, row, strict=False):
            rho = f"{s.radius:.4f}" + ("" if s.converged else " ?")
            # None converged, so there is no direction to speak of.
            share = f"{s.params_share[0]:.0%}" if len(s.params_share) else "?"
            cells = str(step), rho, str(s.unstable), share, f"{s.cost:.0f}"
            table.add_row(label, *cells)
    return table


def _write(
    folder: pathlib.Path, steps: tuple[int, ...], spectra: dict[str, list[JointSpectrum]]
) -> None:
    # Imported late: it is slow, and only this function needs it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
    right.plot(np.real(circle), np.imag(circle), color="grey", linewidth=0.8)
    data = {"steps": np.array(steps)}
    for label, row in spectra.items():
        radii = [s.radius for s in row]
        left.plot(steps[: len(row)], radii, marker="o", label=as_label(label))
        found = np.concatenate([s.eigenvalues for s in row] or [np.zeros(0)])
        right.plot(np.real(found), np.imag(found), ".", alpha=0.7)
        data[f"{label} rho"] = np.array(radii)
        data[f"{label} eigenvalues"] = found
    left.axhline(1, color="grey", linewidth=0.8)
    left.set(xlabel="step", title="rho, the joint spectral radius", xscale="symlog")
    right.set(title="leading eigenvalues", aspect="equal")
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    save_figure(figure, folder / "spectrum.png")
    write_npz_atomically(folder / "spectrum.npz", data)
