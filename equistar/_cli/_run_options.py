"""What a meta-training run keeps and shows, which changes nothing of the run itself."""

import pathlib
from dataclasses import dataclass

from ._output import check_task, CommandError


@dataclass(frozen=True)
class FolderOptions:
    """The run's folder, and what is kept in it; a run that goes on may change these."""

    output: pathlib.Path = pathlib.Path("equistar-meta-train")
    """The folder to write into; made if it is not there."""
    overwrite: bool = False
    """Replace what is in the output folder, and begin anew."""
    save_every: int = 100
    """Meta-steps between two checkpoints, and writings of weights.npz."""
    save_minutes: float = 10.0
    """Minutes after which there is a checkpoint even sooner."""
    keep: int = 3
    """Checkpoints to keep, the newest ones; the best one is kept besides."""
    max_skipped: int = 100
    """The run stops after so many meta-steps whose gradient was not finite."""
    distributed: bool = False
    """Be one of several processes that make the run together: start the same command in
    each, with JAX_COORDINATOR_ADDRESS (host:port of the first one), JAX_NUM_PROCESSES and
    JAX_PROCESS_ID set, or under Slurm or MPI."""

    def check(self) -> None:
        """Refuses numbers that make no sense."""
        if min(self.save_every, self.keep, self.max_skipped) < 1:
            raise CommandError("--save-every, --keep and --max-skipped must be at least 1.")
        if not self.save_minutes > 0:
            raise CommandError("--save-minutes must be positive.")


@dataclass(frozen=True)
class WatchOptions:
    """What is shown and measured while it runs; a run that goes on may change these,
    except how evaluations are made where it has some."""

    quiet: bool = False
    """Print nothing but warnings and errors."""
    tensorboard: bool = True
    """There are event files for `tensorboard --logdir`; --no-tensorboard leaves them
    out."""
    evaluate_every: int = 0
    """Meta-steps between two evaluations on fresh networks, into evaluation.jsonl; 0 for
    none."""
    evaluate_task: tuple[str, ...] = ()
    """Names of tasks to evaluate on, say some that are not meta-trained on; without any
    they are those of the run."""
    evaluate_steps: int = 500
    """Updates of each network in an evaluation; those of a run that has some may not
    change."""
    evaluate_seeds: int = 3
    """Networks of each task in an evaluation; those of a run that has some may not
    change."""
    warn_share: float = 0.5
    """Share of pairs without a signal, or of diverged networks, that is warned of."""

    def check(self) -> None:
        """Refuses numbers and names that make no sense."""
        if min(self.evaluate_steps, self.evaluate_seeds) < 1 or self.evaluate_every < 0:
            raise CommandError(
                "--evaluate-steps and --evaluate-seeds must be at least 1, and "
                "--evaluate-every at least 0."
            )
        if not 0 < self.warn_share <= 1:
            raise CommandError("--warn-share must be above 0 and at most 1.")
        for name in self.evaluate_task:
            check_task(name)
        if self.evaluate_task and not self.evaluate_every:
            raise CommandError(
                "--evaluate-task needs --evaluate-every, say --evaluate-every 1000: "
                "without it nothing is evaluated."
            )
