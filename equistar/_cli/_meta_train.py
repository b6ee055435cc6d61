"""`equistar meta-train`."""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import jax.random as jr
import numpy as np
import tyro
from jaxtyping import PRNGKeyArray

from .. import plot, tasks
from .._episodes import ConstantLength
from .._estimators import PES
from .._inner_training import InnerTraining
from .._meta_train import meta_train
from .._optimizers import AbstractOptimizer, Blackbox, HyperparamController, STAR
from .._outer import default_outer
from .._results import RESULTS
from .._serialisation import save
from ._output import CommandError, console, new_folder, provenance, write_history
from ._progress import progress_logger


_VARIANTS: dict[str, Callable[[PRNGKeyArray], AbstractOptimizer]] = {
    "star": lambda key: STAR(key=key),
    "blackbox": lambda key: Blackbox(key=key),
    "hyperparam": lambda key: HyperparamController(key=key),
}


@dataclass
class MetaTrain:
    """Meta-train a learned optimizer on a task by PES, and save it.

    Writes weights.npz (for `equistar train` and `equistar.load`), metrics.jsonl and
    meta_loss.png into the output folder. Ctrl-C ends the run early and saves what has
    been trained so far.
    """

    task: str = "digits_mlp"
    """The task: digits_mlp, digits_mlp_wide or digits_logistic."""
    optimizer: Literal["star", "blackbox", "hyperparam"] = "star"
    """The learned optimizer to meta-train."""
    steps: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 1000
    """Meta-steps, each one window of every particle."""
    window: int = 50
    """Inner steps between two meta-gradient estimates."""
    pairs: int = 8
    """Antithetic pairs of particles."""
    sigma: float = 0.01
    """Standard deviation of the perturbation of the meta-parameters."""
    length: int = 500
    """Inner steps of an episode: what the optimizer is meta-trained for."""
    learning_rate: float = 1e-3
    """Learning rate of AdamW, the outer optimizer."""
    weight_decay: float = 0.1
    """Weight decay of AdamW, on the blackbox part only."""
    seed: int = 0
    """Of the initial weights, the noise and the data."""
    output: pathlib.Path = pathlib.Path("equistar-meta-train")
    """The folder to write into; made if it is not there."""
    overwrite: bool = False
    """Replace what is in the output folder."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        task = tasks.named(self.task)
        outer = default_outer(self.learning_rate, self.weight_decay)
        estimator = PES(self.window, self.pairs, self.sigma, ConstantLength(self.length))
        if self.steps < 1:
            raise CommandError("--steps must be at least 1.")
        folder = new_folder(self.output, self.overwrite)
        out = console()
        theta_key, run_key = jr.split(jr.key(self.seed))
        with progress_logger(out, self.steps) as logger:
            result = meta_train(
                InnerTraining(task),
                estimator,
                _VARIANTS[self.optimizer](theta_key),
                outer,
                steps=self.steps,
                key=run_key,
                logger=logger,
                throw=False,
            )
        weights = folder / "weights.npz"
        save(weights, result.theta, provenance(self, self.seed, result.history))
        write_history(folder / "metrics.jsonl", result.history)
        plot.training_curves(
            folder / "meta_loss.png",
            {self.optimizer: np.asarray(result.history.meta_loss)[None]},
            title=f"Meta-training on {self.task}",
            ylabel="meta-loss",
        )
        out.print(f"Weights: {weights}")
        out.print(f"Try:     equistar train {weights} --task {self.task}")
        if result.result != RESULTS.successful:
            out.print(RESULTS[result.result])
            return 130 if result.result == RESULTS.interrupted else 1
        return 0
