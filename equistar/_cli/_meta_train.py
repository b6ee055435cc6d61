"""`equistar meta-train`."""

import pathlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import jax
import jax.random as jr
import numpy as np
import tyro
from jaxtyping import PRNGKeyArray
from rich.console import Console

from .. import plot, tasks
from .._checkpoints import Checkpoints
from .._devices import particle_mesh
from .._episodes import AbstractEpisodeLength, ConstantLength
from .._estimators import AbstractEstimator, NRES, PES, PESAnalytic, TruncatedES
from .._inner_training import (
    AbstractMetaLoss,
    AfterUpdate,
    HeldOut,
    InnerTraining,
    TrainingBatch,
)
from .._logger import Metrics, unstack_metrics
from .._meta_train import meta_train, MetaTrainResult
from .._optimizers import AbstractOptimizer, Blackbox, HyperparamController, STAR
from .._outer import default_outer
from .._results import RESULTS
from .._serialisation import save
from ._output import CommandError, console, new_folder, provenance, write_history
from ._processes import join_processes, leave, one_process, Processes, STOPPED_WITHIN
from ._progress import meta_train_logger


_VARIANTS: dict[str, Callable[[PRNGKeyArray], AbstractOptimizer]] = {
    "star": lambda key: STAR(key=key),
    "blackbox": lambda key: Blackbox(key=key),
    "hyperparam": lambda key: HyperparamController(key=key),
}
_ESTIMATORS: dict[
    str, Callable[[int, int, float, AbstractEpisodeLength], AbstractEstimator]
] = {
    "pes": PES,
    "nres": NRES,
    "pes-analytic": PESAnalytic,
    "truncated-es": TruncatedES,
}
_META_LOSSES: dict[str, AbstractMetaLoss] = {
    "training": TrainingBatch(),
    "after-update": AfterUpdate(),
    "validation": HeldOut(),
}


@dataclass
class MetaTrain:
    """Meta-train a learned optimizer on a task, and save it.

    Writes weights.npz (for `equistar train` and `equistar.load`), metrics.jsonl and
    meta_loss.png into the output folder, and checkpoints of the whole run: after a crash,
    a kill or Ctrl-C the same command goes on where the last one stands, to the same bits;
    with more --steps it goes on beyond its end. All devices of the machine are used; the
    pairs must divide over them.
    """

    task: str = "digits_mlp"
    """The task's name; a wrong one lists the right ones."""
    optimizer: Literal["star", "blackbox", "hyperparam"] = "star"
    """The learned optimizer to meta-train."""
    estimator: Literal["pes", "nres", "pes-analytic", "truncated-es"] = "pes"
    """How the meta-gradient is estimated; truncated-es is biased, for comparison."""
    meta_loss: Literal["training", "after-update", "validation"] = "training"
    """The loss to meta-train for: of the training batch before or after the update, or on
    held-out data."""
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
    save_every: int = 100
    """Meta-steps between two checkpoints, and writings of weights.npz."""
    keep: int = 3
    """Checkpoints to keep, the newest ones."""
    distributed: bool = False
    """Be one of several processes that make the run together: start the same command in
    each, with JAX_COORDINATOR_ADDRESS (host:port of the first one), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID set, or under Slurm or MPI."""
    output: pathlib.Path = pathlib.Path("equistar-meta-train")
    """The folder to write into; made if it is not there."""
    overwrite: bool = False
    """Replace what is in the output folder, and begin anew."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        outer = default_outer(self.learning_rate, self.weight_decay)
        length = ConstantLength(self.length)
        settings = self.window, self.pairs, self.sigma, length
        estimator = _ESTIMATORS[self.estimator](*settings)
        if min(self.steps, self.save_every, self.keep) < 1:
            raise CommandError("--steps, --save-every and --keep must be at least 1.")
        out = console()
        processes = join_processes(out) if self.distributed else one_process()
        out.quiet = not processes.first
        unroll = InnerTraining(tasks.named(self.task), _META_LOSSES[self.meta_loss])
        theta_key, run_key = jr.split(jr.key(self.seed))
        fresh = _VARIANTS[self.optimizer](theta_key)
        mesh = particle_mesh()
        _check_pairs(self.pairs, mesh.size)
        checkpoints = Checkpoints(
            self.output / "checkpoints", self.save_every, self.keep, self._settings()
        )
        earlier = self._earlier(checkpoints, processes, out)
        folder, weights = self.output, self.output / "weights.npz"
        every = self.save_every if processes.first else self.steps + 1
        checkpoint = lambda theta, history: save(
            weights, theta, provenance(self, self.seed, history)
        )
        logger = meta_train_logger(out, self.steps, every, checkpoint, earlier)
        with jax.set_mesh(mesh), logger as log:
            result = meta_train(
                unroll,
                estimator,
                fresh,
                outer,
                steps=self.steps,
                key=run_key,
                logger=log,
                checkpoints=checkpoints,
                throw=False,
            )
        if result.result == RESULTS.process_lost:
            self._rescue(result, processes)
        if not processes.first:
            return 0
        checkpoint(result.theta, result.history)
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

    def _settings(self) -> dict[str, Any]:
        """What makes the run what it is; the others may change when it goes on."""
        free = "steps", "save_every", "keep", "output", "overwrite", "distributed"
        return {k: v for k, v in vars(self).items() if k not in free}

    def _earlier(
        self, checkpoints: Checkpoints, processes: Processes, out: Console
    ) -> list[Metrics]:
        """The metrics of the meta-steps that the folder's checkpoints hold."""
        if processes.first:
            if not checkpoints.folder.is_dir():
                new_folder(self.output, self.overwrite)
            if self.overwrite:
                checkpoints.clear()
        history = checkpoints.history()
        if history is None:
            return []
        earlier = unstack_metrics(history)
        out.print(f"{self.output} has {len(earlier)} meta-steps already: going on.")
        return earlier

    def _rescue(self, result: MetaTrainResult, processes: Processes) -> None:
        """What a survivor does: its own copy of what was trained, a message, the end."""
        self.output.mkdir(parents=True, exist_ok=True)
        rescued = self.output / f"rescued-by-process-{processes.index}.npz"
        save(rescued, result.theta, provenance(self, self.seed, result.history))
        steps = len(np.asarray(result.history.meta_loss))
        out = console()
        out.print(
            f"Another process of the run, or a device, failed after {steps} meta-steps. "
            f"What was trained until then is in {rescued}; {self.output / 'weights.npz'} "
            f"is whole, of at most --save-every {self.save_every} meta-steps earlier. "
            f"Every process stops within {STOPPED_WITHIN} s."
        )
        leave(1)


def _check_pairs(pairs: int, devices: int) -> None:
    if pairs % devices:
        raise CommandError(
            f"{pairs} pairs do not divide over {devices} devices: set --pairs to a "
            f"multiple of {devices}."
        )
