"""`equistar evaluate`."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import jax.random as jr
import tyro
from rich.console import Console

from .. import tasks
from .._evaluation import (
    AbstractBaseline,
    compare_evaluations,
    DAdaptation,
    evaluate,
    Evaluation,
    FolderStore,
    load_evaluation,
    Prodigy,
    ScheduleFree,
    TunedAdafactor,
    TunedAdam,
    TunedLion,
    TunedMomentum,
    TunedNAdamW,
    TunedSGD,
    with_kept,
)
from .._names import suggest
from .._optimizers import AbstractOptimizer
from .._serialisation import load, weights_path
from ._output import (
    alone_in,
    check_seed,
    check_task,
    CommandError,
    console,
    new_folder,
)
from ._progress import evaluation_progress


_Baseline = Literal[
    "adam",
    "nadamw",
    "sgd",
    "momentum",
    "adafactor",
    "lion",
    "d-adaptation",
    "prodigy",
    "schedule-free",
]
_BASELINES = {
    "adam": TunedAdam,
    "sgd": TunedSGD,
    "momentum": TunedMomentum,
    "adafactor": TunedAdafactor,
    "lion": TunedLion,
    "d-adaptation": DAdaptation,
    "prodigy": Prodigy,
    "schedule-free": ScheduleFree,
}


@dataclass
class Evaluate:
    """Compare optimizers from weights files with tuned baselines, on a suite of tasks.

    Trains fresh networks on every task with every optimizer, from the same seeds, and
    with baselines whose settings are tuned on those very seeds. Writes report.md with
    tables and figures, and results/ with every curve, into the output folder.

    It can be stopped and started again: what is there is not run again. Another weights
    file, another task or a longer horizon is added by the same command: the report is of
    all that is in results/. Sweeps of baselines are kept apart, for all evaluations.
    """

    weights: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional] = ()
    """Files that `equistar meta-train` or `equistar.save` wrote, or names of pretrained
    optimizers (`equistar info` lists them); none for the baselines alone."""
    suite: str = "smoke"
    """The suite of tasks: smoke or another one that `equistar.tasks.SUITES` lists."""
    tasks: tuple[str, ...] = ()
    """Tasks by name, in place of a suite: digits_mlp, digits_logistic, ..."""
    steps: int = 500
    """Updates of each network: the length that baselines are tuned at."""
    seeds: int = 5
    """Networks for each optimizer and task."""
    baselines: tuple[_Baseline, ...] = ("adam",)
    """Hand-made optimizers to tune; ratios and speed-ups are relative to adam."""
    nadamw_draws: int = 64
    """Draws of NAdamW's random search; the STAR paper's is 1000."""
    horizons: tuple[int, ...] = ()
    """Lengths of training as multiples of --steps: --horizons 1 10 100 shows what becomes
    of an optimizer far beyond the length that it was meta-trained for. By default those
    of the suite (1 10 100 for smoke, 1 10 for offline), and 1 for --tasks."""
    time_budget: float = 600.0
    """Seconds that one longer training of all seeds may take; what would take longer is
    left out, and named in the report."""
    compare: tuple[pathlib.Path, ...] = ()
    """Output folders of earlier evaluations, to put into the same report."""
    seed: int = 0
    """Of the initial parameters, the minibatches and the random searches."""
    output: pathlib.Path = pathlib.Path("equistar-evaluate")
    """The folder to write into; made if it is not there."""
    cache: pathlib.Path = pathlib.Path(
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "equistar", "sweeps"
    )
    """The folder where sweeps of baselines are kept."""
    overwrite: bool = False
    """Drop the results in the output folder and begin anew."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        self._check()
        names = self.tasks or _suite(self.suite)
        optimizers = _optimizers(self.weights)
        earlier = self._earlier()
        sweeps = _sweeps_folder(self.cache)
        out = console()
        out.print(
            f"Tasks: {', '.join(names)}. Optimizers: "
            f"{', '.join(optimizers) or 'none, for no weights are given'}. "
            f"Baselines: {', '.join(self.baselines) or 'none'}. {self.seeds} seeds of "
            f"{self.steps} steps.",
            highlight=False,
        )
        with _results_folder(self.output, self.overwrite) as results:
            try:
                evaluation = self._evaluate(optimizers, names, results, sweeps, out)
            except KeyboardInterrupt:
                out.print("Interrupted. The same command goes on from what is finished.")
                return 130
            # Before anything is printed: what is printed into may be gone.
            code = 1 if evaluation.failures else 0
            evaluation = with_kept(evaluation, load_evaluation(results.path))
            evaluation.report(self.output / "report.md")
            if earlier:
                evaluation = self._beside(earlier, evaluation)
                evaluation.report(self.output / "report.md")
        out.print(evaluation.table())
        if not self.baselines and not evaluation.results.reference:
            out.print("Without a baseline there are no ratios: the report has mean losses.")
        out.print(f"Report:  {self.output / 'report.md'}")
        out.print(f"Results: {results.path}")
        for note in evaluation.notes:
            out.print(note, highlight=False)
        for failure in evaluation.failures:
            out.print(f"Failed: {failure.optimizer} on {failure.task}: {failure.message}")
        return code

    def _evaluate(
        self,
        optimizers: dict[str, AbstractOptimizer],
        names: tuple[str, ...],
        results: FolderStore,
        sweeps: FolderStore,
        out: Console,
    ) -> Evaluation:
        with evaluation_progress(out) as progress:
            return evaluate(
                optimizers,
                names,
                steps=self.steps,
                seeds=self.seeds,
                baselines=[_baseline(name, self.nadamw_draws) for name in self.baselines],
                horizons=self._horizons(),
                time_budget=self.time_budget,
                results=results,
                sweeps=sweeps,
                progress=progress,
                key=jr.key(self.seed),
            )

    def _horizons(self) -> tuple[int, ...]:
        return self.horizons or ((1,) if self.tasks else tasks.HORIZONS[self.suite])

    def _earlier(self) -> dict[str, Evaluation]:
        for path in self.compare:
            if path.resolve() == self.output.resolve():
                raise CommandError(
                    f"--compare {path} is the output folder itself: leave it out, or "
                    "choose another folder with --output."
                )
        earlier = {str(path): load_evaluation(path) for path in self.compare}
        for path, evaluation in earlier.items():
            there = evaluation.about["steps"], evaluation.about["seeds"]
            if there != (self.steps, self.seeds):
                raise CommandError(
                    f"{path} cannot be compared: it is of {there[1]} seeds and {there[0]} "
                    f"steps. Pass --seeds {there[1]} --steps {there[0]}."
                )
        return earlier

    def _beside(self, earlier: dict[str, Evaluation], evaluation: Evaluation) -> Evaluation:
        try:
            return compare_evaluations({str(self.output): evaluation, **earlier})
        except ValueError as e:
            raise CommandError(
                f"{e} {self.output / 'report.md'} is of this evaluation alone."
            ) from e

    def _check(self) -> None:
        if min(self.steps, self.seeds, self.nadamw_draws, *self.horizons) < 1:
            raise CommandError(
                "--steps, --seeds, --nadamw-draws and --horizons must be at least 1."
            )
        if not self.time_budget >= 0:
            raise CommandError("--time-budget must be a number of seconds, at least 0.")
        if not self.weights and not self.baselines:
            raise CommandError("Give a weights file, or --baselines adam.")
        check_seed(self.seed)
        for flag, names in (("--tasks", self.tasks), ("--baselines", self.baselines)):
            if len(set(names)) < len(names):
                raise CommandError(f"{flag} names one twice: give each of them once.")
        for name in self.tasks:
            check_task(name)
        if not self.tasks and self.suite not in tasks.SUITES:
            raise CommandError(
                f"There is no suite '{self.suite}': "
                f"{suggest(self.suite, sorted(tasks.SUITES))}."
            )


def _suite(name: str) -> tuple[str, ...]:
    return tuple(tasks.SUITES[name])


def _baseline(name: str, draws: int) -> AbstractBaseline:
    return TunedNAdamW(number=draws) if name == "nadamw" else _BASELINES[name]()


def _optimizers(paths: Sequence[pathlib.Path]) -> dict[str, AbstractOptimizer]:
    """By the names of their files, or by their paths where two have the same name."""
    names = [path.name for path in paths]
    label = lambda path: str(path) if names.count(path.name) > 1 else path.name
    if len({label(path) for path in paths}) < len(paths):
        raise CommandError("A weights file is given twice: give each of them once.")
    return {label(path): load(weights_path(path)) for path in paths}


def _sweeps_folder(cache: pathlib.Path) -> FolderStore:
    """The store of sweeps; refused now rather than after the first of them."""
    try:
        path = cache.expanduser()
    except RuntimeError as e:
        raise CommandError(
            "There is no home folder to keep sweeps in: choose a folder with --cache."
        ) from e
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as e:
        raise CommandError(
            f"Cannot keep sweeps in {path} ({e.strerror}): choose another folder with "
            "--cache."
        ) from e
    return FolderStore(path)


@contextlib.contextmanager
def _results_folder(output: pathlib.Path, overwrite: bool) -> Iterator[FolderStore]:
    """The store in the output folder, which may be that of an earlier evaluation."""
    results = FolderStore(output / "results")
    if not results.is_evaluation():
        new_folder(output, overwrite)
    with alone_in(output):
        if overwrite:
            results.clear()
            (output / "report.md").unlink(missing_ok=True)
        yield results
