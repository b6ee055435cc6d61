"""The results of an evaluation, and several of them beside each other."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
from rich.table import Table

from .._kinds import as_path, check_kind
from .._text import as_text
from ._report import write_report
from ._results import Failure, Results, Run
from ._store import ABOUT, difference, digest, Entry, FolderStore, LEFT_OUT
from ._tables import summary_table


# What two evaluations must share for their numbers to be comparable.
_COMPARABLE = "steps", "seeds", "keys", "held_out", "dtype"


class Evaluation(eqx.Module):
    """What [`equistar.evaluate`][] returns; `print` shows a table, failures and notes.

    **Attributes:**

    - `results`: every [`equistar.Run`][], and the statistics computed from them.
    - `failures`: an [`equistar.Failure`][] for every error.
    - `notes`: sentences on what was left out, and why.
    - `about`: settings, versions and device.
    """

    results: Results
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    about: dict[str, Any]

    def table(self) -> Table:
        """Every optimizer over all tasks, as a table for a `rich.console.Console`."""
        return summary_table(self.results)

    def __str__(self) -> str:
        failed = (f"Failed: {f.optimizer} on {f.task}: {f.message}" for f in self.failures)
        lines = *failed, *self.notes
        return as_text(self.table()) + "".join(f"{line}\n" for line in lines)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Writes a Markdown report; its figures go into the folder beside it.

        **Arguments:**

        - `path`: the file, say `evaluation/report.md`; its folder is made. Figures are
            PNG files in `figures/` there.

        **Raises:**

        `ValueError` if it is not a path of a file.
        """
        path = as_path(path, "path")
        if path.is_dir():
            raise ValueError(f"{path} is a folder: name a file, say {path / 'report.md'}.")
        write_report(path, self.results, self.failures, self.notes, self.about)


def load_evaluation(path: str | os.PathLike[str]) -> Evaluation:
    """Reads the results that an evaluation left in a folder.

    **Arguments:**

    - `path`: the folder that `FolderStore` was given; or the output folder of `equistar
        evaluate`, or the folder `results` in it.

    **Returns:**

    An [`equistar.Evaluation`][].

    **Raises:**

    `ValueError` if it is not a path, if there are no results in it, or if what says their
    settings is damaged.
    """
    path = as_path(path, "path")
    store = FolderStore(path)
    store = store if store.is_evaluation() else FolderStore(path / "results")
    entry = store.load(ABOUT)
    if entry is None:
        raise ValueError(
            f"There are no results in {path}: give a folder that `equistar evaluate "
            "--output` or `FolderStore` wrote."
        )
    runs, failures, left_out = [], [], []
    made: dict[str, set[str]] = {}
    for found in store.entries():
        if LEFT_OUT in found.header:
            left_out.append(found.header)
        elif "failure" in found.header:
            fields = (found.header[name] for name in ("task", "optimizer", "failure"))
            failures.append(Failure(*fields))
        elif "losses" in found.arrays and _is_of(found, entry):
            runs.append(run := Run.from_entry(found))
            # A baseline is tuned for each task, and so another one on each.
            if not run.settings:
                contents = found.header["settings"]["optimizer"]
                made.setdefault(run.optimizer, set()).add(contents)
    reference = entry.header["reference"]
    results = Results(tuple(runs), reference)
    # What was left out once may have been run since.
    there = {(run.task, run.steps) for run in runs}
    missing = [h for h in left_out if (h["task"], h["steps"]) not in there]
    notes = (
        *(header[LEFT_OUT] for header in missing),
        *map(_of_damaged, store.damaged()),
        *map(_of_other_tasks, _several(_contents(runs))),
        *map(_of_other_optimizers, _several(made)),
    )
    return Evaluation(results, tuple(failures), notes, entry.header["settings"])


def _of_damaged(path: pathlib.Path) -> str:
    return (
        f"{path} cannot be read and is left out: evaluate what is missing again, or remove "
        "it."
    )


def _of_other_tasks(task: str) -> str:
    return (
        f"'{task}' is not the same task in all of its results, so their ratios mean "
        "nothing: evaluate all optimizers on it again."
    )


def _of_other_optimizers(name: str) -> str:
    return (
        f"'{name}' is not the same optimizer in all of its results: evaluate it again on "
        "all tasks and horizons."
    )


def _is_of(entry: Entry, about: Entry) -> bool:
    """Whether a result was made with these settings: others may be left of a lost file."""
    here = digest(about.header["settings"])
    return entry.header["settings"].get("settings", here) == here


def with_kept(evaluation: Evaluation, kept: Evaluation) -> Evaluation:
    """An evaluation, with what others of the same settings left in its folder behind it."""
    place = lambda run: (run.task, run.optimizer, run.steps)
    made = {place(run) for run in evaluation.results.runs}
    runs = [run for run in kept.results.runs if place(run) not in made]
    runs = (*evaluation.results.runs, *runs)
    failures = [f for f in kept.failures if f not in evaluation.failures]
    notes = [note for note in kept.notes if note not in evaluation.notes]
    return Evaluation(
        Results(runs, kept.results.reference),
        (*evaluation.failures, *failures),
        (*evaluation.notes, *notes),
        evaluation.about,
    )


def _several(contents: Mapping[str, set[str]]) -> list[str]:
    """The names that stand for more than one thing."""
    return [name for name, digests in contents.items() if len(digests) > 1]


def compare_evaluations(evaluations: Mapping[str, Evaluation]) -> Evaluation:
    """Several evaluations as one, with one table and one report.

    An optimizer that is in several of them is called `label: name`, except a baseline,
    which is taken from the first that has it.

    **Arguments:**

    - `evaluations`: by label.

    **Returns:**

    An [`equistar.Evaluation`][].

    **Raises:**

    `ValueError` if they are no evaluations by label, or there are none, or if they differ
    in steps, seeds, the split of held-out losses, the precision, or what a task is that
    they have by one name. Between versions of equistar a task cannot be compared: there is
    a note instead.
    """
    wanted = "a dictionary of evaluations by label, say `{'mine': evaluation}`"
    check_kind(evaluations, Mapping, "`evaluations`", wanted)
    for label, each in evaluations.items():
        wanted = "an Evaluation, say `load_evaluation('folder')`"
        check_kind(each, Evaluation, f"The evaluation '{label}'", wanted)
    if not evaluations:
        raise ValueError("There is nothing to compare: give at least one evaluation.")
    first_label, first = next(iter(evaluations.items()))
    for label, other in evaluations.items():
        pick = lambda e: {name: e.about.get(name) for name in _COMPARABLE}
        where = f"in '{first_label}'", f"in '{label}'"
        differs = difference(pick(first), pick(other), *where)
        if differs:
            raise ValueError(f"These evaluations cannot be compared ({differs}).")
    unknown = _check_tasks(evaluations)
    runs: dict[tuple[str, str, int], Run] = {}
    failures: list[Failure] = []
    for label, evaluation in evaluations.items():
        names = _names(label, evaluation, evaluations)
        for run in evaluation.results.runs:
            run = eqx.tree_at(lambda r: r.optimizer, run, names[run.optimizer])
            runs.setdefault((run.task, run.optimizer, run.steps), run)
        failures += [
            Failure(f.task, f"{label}: {f.optimizer}", f.message)
            for f in evaluation.failures
        ]
    references = (e.results.reference for e in evaluations.values())
    reference = next((r for r in references if r), "")
    notes = tuple(f"{label}: {n}" for label, e in evaluations.items() for n in e.notes)
    notes += unknown
    results = Results(tuple(runs.values()), reference)
    return Evaluation(results, tuple(failures), notes, first.about)


def _contents(runs: Iterable[Run]) -> dict[str, set[str]]:
    """The digests of each task, by its name."""
    found: dict[str, set[str]] = {}
    for run in runs:
        found.setdefault(run.task, set()).update({run.task_contents} - {""})
    return found


def _check_tasks(evaluations: Mapping[str, Evaluation]) -> tuple[str, ...]:
    """Refuses tasks of one name that differ; notes on those of which nobody knows."""
    everywhere = _contents(r for e in evaluations.values() for r in e.results.runs)
    differ = [f"'{task}'" for task in _several(everywhere)]
    first, *others = (e.about.get("versions") for e in evaluations.values())
    if differ and all(versions == first for versions in others):
        raise ValueError(
            f"These evaluations cannot be compared: {', '.join(differ)} is not the same "
            "task in all of them. Give different tasks different names, or evaluate again."
        )
    return tuple(
        f"{task} may not be the same task in all of these evaluations, for they were made "
        "with different versions of the packages."
        for task in differ
    )


def _names(
    label: str, evaluation: Evaluation, evaluations: Mapping[str, Evaluation]
) -> dict[str, str]:
    """What the optimizers of one evaluation are called among several."""
    others = [e.results.optimizers for e in evaluations.values() if e is not evaluation]
    baselines = {r.optimizer for r in evaluation.results.runs if r.settings}
    return {
        name: f"{label}: {name}"
        if name not in baselines and any(name in names for names in others)
        else name
        for name in evaluation.results.optimizers
    }
