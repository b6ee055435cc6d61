"""`equistar train`."""

import pathlib
from dataclasses import dataclass
from typing import Annotated

import jax.random as jr
import numpy as np
import tyro

from .. import plot, tasks
from .._files import write_npz_atomically
from .._inner_training import training_curves
from .._optimizers import Scaled
from .._serialisation import load, weights_path
from ._output import (
    check_seed,
    check_task,
    CommandError,
    console,
    loss_table,
    output_folder,
)


@dataclass
class Train:
    """Train fresh networks on a task with an optimizer from a weights file.

    Prints the losses and writes curves.npz and curves.png into the output folder.
    """

    weights: Annotated[pathlib.Path, tyro.conf.Positional]
    """The file that `equistar meta-train` or `equistar.save` wrote, or the name of a
    pretrained optimizer (`equistar info` lists them)."""
    task: str = "digits_mlp"
    """The task's name; a wrong one lists the right ones."""
    steps: int = 500
    """Updates of each network."""
    seeds: int = 5
    """Networks to train, each from its own seed."""
    learning_rate: float = 1.0
    """A factor on every update; 1 is the optimizer's own choice."""
    seed: int = 0
    """Of the initial parameters and the minibatches."""
    output: pathlib.Path = pathlib.Path("equistar-train")
    """The folder to write into; made if it is not there."""
    overwrite: bool = False
    """Replace what is in the output folder."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        if self.steps < 1 or self.seeds < 1:
            raise CommandError("--steps and --seeds must be at least 1.")
        if self.steps >= 2**31:
            raise CommandError(f"--steps must be below 2**31; got {self.steps}.")
        if not 0 < self.learning_rate < float("inf"):
            raise CommandError("--learning-rate must be positive and finite.")
        check_task(self.task)
        check_seed(self.seed)
        task = tasks.named(self.task)
        optimizer = Scaled(load(weights_path(self.weights)), self.learning_rate)
        out, name = console(), self.weights.name
        keys = jr.split(jr.key(self.seed), self.seeds)
        with output_folder(self.output, self.overwrite) as folder:
            out.print(f"Training {self.seeds} networks for {self.steps} steps ...")
            curves = training_curves(task, optimizer, steps=self.steps, keys=keys)
            curves = np.asarray(curves)
            # Before more is printed: what is printed into may be gone.
            write_npz_atomically(folder / "curves.npz", {"losses": curves})
            plot.training_curves(folder / "curves.png", {name: curves}, title=self.task)
        out.print(loss_table(f"Training loss on {self.task}", [(name, curves)]))
        out.print(f"Curves: {folder / 'curves.png'} and {folder / 'curves.npz'}")
        if not np.all(np.isfinite(curves)):
            out.print(
                "Some networks diverged: try --learning-rate 0.3, or an optimizer that "
                "was meta-trained on such a task."
            )
            return 1
        return 0
