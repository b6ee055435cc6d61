"""`equistar meta-train`."""

import pathlib
import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any

import jax
import jax.random as jr
import numpy as np
import tyro
from rich.console import Console

from .. import plot
from .._devices import all_or_none, any_process, particle_mesh
from .._meta_training import (
    check_reach,
    CheckpointError,
    Checkpoints,
    meta_train,
    MetaTrainResult,
)
from .._recipes import Recipe
from .._results import RESULTS
from ._output import (
    check_folder,
    check_outside,
    check_seed,
    CommandError,
    console,
    new_folder,
    same_command,
)
from ._processes import join_processes, leave, one_process, Processes, STOPPED_WITHIN
from ._recipe_choice import recipes_table
from ._run_files import FIGURE, finished_steps, remove_files, save_weights
from ._run_options import FolderOptions, WatchOptions
from ._run_watchers import RunWatchers, tasks_key
from ._watchers import WatchedCheckpoints, watching


@dataclass
class MetaTrain:
    """Meta-train a learned optimizer, and save it.

    A recipe by name (--list shows them) or from a file (--config), and flags that change
    it: `equistar meta-train star-paper --steps 100`; with --help, its own values are shown.

    Into the output folder go weights.npz (for `equistar train` and `equistar.load`),
    weights_best.npz (where the smoothed meta-loss was lowest), recipe.json (for --config),
    metrics.jsonl, meta_loss.png, event files for TensorBoard, and checkpoints of the whole
    run: after a crash, a kill or Ctrl-C the same command goes on where the last one stands,
    to the same bits; with more --steps it goes on beyond its end, unless a schedule such as
    cosine ends there. All devices of the machine are used; the pairs must divide over
    them.
    """

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")] = (
        None
    )
    """The recipe to begin with, star-digits if none is named; must come first."""
    config: Annotated[pathlib.Path | None, tyro.conf.arg(metavar="FILE")] = None
    """The recipe in this file instead, say recipe.json of an earlier run."""
    show_list: Annotated[bool, tyro.conf.arg(name="list")] = False
    """Show the recipes that have a name, and end."""
    recipe: Recipe = field(default_factory=Recipe)
    """The run: what makes it what it is."""
    folder: FolderOptions = field(default_factory=FolderOptions)
    """The run's folder; a run that goes on may change these."""
    watch: WatchOptions = field(default_factory=WatchOptions)
    """What is shown and measured; a run that goes on may change these, except how
    evaluations are made where it has some."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        out = console()
        if self.show_list:
            out.print(recipes_table())
            return 0
        self._check()
        processes = join_processes(out) if self.folder.distributed else one_process()
        out.quiet = self.watch.quiet or not processes.first
        checkpoints = self._checkpoints()
        with all_or_none():
            finished = self._is_finished(checkpoints, processes)
        if any_process(finished):
            out.print(f"Done already after {self.recipe.steps} meta-steps.")
            self._say_what_next(out)
            return 0
        result = self._meta_train(checkpoints, processes, out)
        if result.result == RESULTS.process_lost:
            self._rescue(result, processes)
        if processes.first:
            self._finish(result, checkpoints, out)
        if result.result == RESULTS.interrupted:
            return 130
        return 1 if result.result == RESULTS.no_meta_gradient else 0

    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(
            self.folder.output / "checkpoints",
            self.folder.save_every,
            self.folder.keep,
            self.recipe.identity(),
            self.folder.save_minutes,
        )

    def _meta_train(
        self, checkpoints: Checkpoints, processes: Processes, out: Console
    ) -> MetaTrainResult:
        recipe = self.recipe
        theta_key, run_key = jr.split(jr.key(recipe.seed))
        mesh = particle_mesh()
        with ExitStack() as opened:
            with all_or_none():
                fresh = recipe.optimizer.build(key=theta_key)
                trainable = _checked(recipe.optimizer.trainable, fresh)
                _check_pairs(recipe.estimator.pairs, mesh.size)
                unroll = opened.enter_context(recipe.tasks.unroll(key=tasks_key(recipe)))
            # The tasks came first: where data are missing, no folder is made. And no other
            # process looks into the folder before it is ready.
            with all_or_none():
                if processes.first:
                    self._prepare(checkpoints)
                run = RunWatchers(recipe, self.folder, self.watch, processes, out)
                watchers = tuple(run.all())
            with jax.set_mesh(mesh), watching(watchers) as logger:
                return meta_train(
                    unroll,
                    recipe.estimator.build(),
                    fresh,
                    recipe.outer.build(recipe.steps),
                    steps=recipe.steps,
                    key=run_key,
                    trainable=trainable,
                    logger=logger,
                    checkpoints=WatchedCheckpoints(checkpoints, watchers),
                    max_skipped=self.folder.max_skipped,
                    warn_share=self.watch.warn_share,
                    throw=False,
                )

    def _check(self) -> None:
        check_seed(self.recipe.seed)
        _checked(self.recipe.check)
        self.folder.check()
        self.watch.check()
        if self.folder.overwrite:
            check_outside(self.recipe.optimizer.start_from, self.folder.output)

    def _is_finished(self, checkpoints: Checkpoints, processes: Processes) -> bool:
        """Whether the folder holds this run whole; refuses that of another run."""
        output, steps = self.folder.output, self.recipe.steps
        if self.folder.overwrite:
            return False
        if processes.first and not checkpoints.are_of_runs():
            check_folder(output, overwrite=False)
        history = checkpoints.history()
        made = 0 if history is None else len(history.meta_loss)
        _checked(check_reach, made, steps, str(output), "--steps", "--output")
        # One that gave up on its last meta-step says so again.
        gave_up = history is not None and history.skipped[-1] >= self.folder.max_skipped
        written = finished_steps(output / "weights.npz"), (output / FIGURE).is_file()
        return made == steps and written == (steps, True) and not gave_up

    def _prepare(self, checkpoints: Checkpoints) -> None:
        if not checkpoints.are_of_runs():
            new_folder(self.folder.output, self.folder.overwrite)
        if self.folder.overwrite:
            checkpoints.clear()
            remove_files(self.folder.output)

    def _finish(
        self, result: MetaTrainResult, checkpoints: Checkpoints, out: Console
    ) -> None:
        output, weights = self.folder.output, self.folder.output / "weights.npz"
        best, history = checkpoints.restore_best(result.state)
        if history is not None:
            save_weights(output / "weights_best.npz", self.recipe, best.theta, history)
        save_weights(weights, self.recipe, result.theta, result.history)
        losses = np.asarray(result.history.meta_loss)
        title = f"Meta-training on {', '.join(self.recipe.tasks.labels)}"
        plot.meta_training_curves(output / FIGURE, {output.name: losses}, title=title)
        self._say_what_next(out)
        if result.result == RESULTS.interrupted:
            print(
                f"Interrupted after {len(losses)} meta-steps, which are kept. Go on with:"
            )
            print(f"  {same_command()}")
        if result.result == RESULTS.no_meta_gradient:
            print(f"equistar: {RESULTS[result.result]}", file=sys.stderr)
            print(
                f"A skipped meta-step changes nothing: {weights} holds the last good "
                f"optimizer, and {checkpoints.newest()} the run's last state.",
                file=sys.stderr,
            )

    def _say_what_next(self, out: Console) -> None:
        weights = self.folder.output / "weights.npz"
        best = weights.with_name("weights_best.npz")
        lowest = f" (where the meta-loss was lowest: {best.name})"
        out.print(f"Weights: {weights}{lowest if best.is_file() else ''}")
        task = next(iter(self.recipe.tasks.task), "digits_mlp")
        quote = lambda path: shlex.quote(str(path))
        out.print(f"Try:     equistar train {quote(weights)} --task {task}")
        out.print(f"         equistar plot {quote(self.folder.output)}")

    def _rescue(self, result: MetaTrainResult, processes: Processes) -> None:
        """What a survivor does: its own copy of what was trained, a message, the end."""
        output = self.folder.output
        output.mkdir(parents=True, exist_ok=True)
        rescued = output / f"rescued-by-process-{processes.index}.npz"
        save_weights(rescued, self.recipe, result.theta, result.history)
        steps, weights = len(np.asarray(result.history.meta_loss)), output / "weights.npz"
        earlier = (
            f" {weights} is whole, of at most --save-every {self.folder.save_every} "
            "meta-steps earlier."
        )
        print(
            f"Another process of the run, or a device, failed after {steps} meta-steps. "
            f"What was trained until then is in {rescued}."
            f"{earlier * weights.is_file()} Every process stops within {STOPPED_WITHIN} s."
        )
        leave(1)


def _checked(make: Callable[..., Any], *arguments: Any) -> Any:
    """What settings make; one that makes no sense is a wrong argument."""
    try:
        return make(*arguments)
    except (ValueError, CheckpointError) as e:
        raise CommandError(str(e)) from e


def _check_pairs(pairs: int, devices: int) -> None:
    if pairs % devices:
        raise CommandError(
            f"{pairs} pairs do not divide over {devices} devices: set --pairs to a "
            f"multiple of {devices}."
        )
