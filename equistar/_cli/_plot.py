"""`equistar plot`."""

import json
import pathlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import tyro

from .. import plot
from .._smoothing import SMOOTHING
from ._output import CommandError, console
from ._run_files import read_json_lines


@dataclass
class Plot:
    """Draw the meta-training curves of runs, side by side, into a PNG file.

    Shows the meta-loss of each meta-step, smoothed and as it was, and evaluations where
    there are some. Runs that are still going are drawn as far as they are.
    """

    runs: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional]
    """Output folders of `equistar meta-train`."""
    output: pathlib.Path = pathlib.Path("meta_training.png")
    """The PNG file to write; replaced if it is there."""
    smoothing: float = SMOOTHING
    """Decay of the exponential moving average; the STAR paper's is 0.98."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        if not self.runs:
            raise CommandError("Give the folder of a run, say equistar-meta-train.")
        if not 0 <= self.smoothing < 1:
            raise CommandError("--smoothing must be at least 0 and below 1.")
        if len(set(self.runs)) < len(self.runs):
            raise CommandError("A run is given twice: give each of them once.")
        if self.output.is_dir() or not self.output.parent.is_dir():
            raise CommandError(
                f"--output must be a file in a folder that is there; got {self.output}."
            )
        _check_format(self.output)
        out = console()
        labels = _labels(self.runs)
        runs = {label: _read(path) for label, path in zip(labels, self.runs, strict=True)}
        for label, run in runs.items():
            for complaint in run.complaints:
                out.print(complaint, markup=False, highlight=False, soft_wrap=True)
            if run.steps is not None and len(run.losses) < run.steps:
                out.print(f"{label}: {len(run.losses)} of {run.steps} meta-steps so far.")
        plot.meta_training_curves(
            self.output,
            {label: run.losses for label, run in runs.items()},
            {
                f"{label}: {task}" if len(runs) > 1 else task: curve
                for label, run in runs.items()
                for task, curve in run.evaluations.items()
            },
            smoothing=self.smoothing,
        )
        out.print(f"Curves: {self.output}")
        return 0


@dataclass
class _Run:
    losses: np.ndarray
    # None if it is not known how many there will be.
    steps: int | None
    evaluations: dict[str, tuple[np.ndarray, np.ndarray]]
    complaints: list[str] = field(default_factory=list)


def _check_format(path: pathlib.Path) -> None:
    from matplotlib.figure import Figure

    # A file without an ending is a PNG.
    known = sorted(Figure().canvas.get_supported_filetypes())
    if path.suffix and path.suffix[1:].lower() not in known:
        raise CommandError(
            f"--output must end in .png, or in one of {', '.join(known)}; got {path}."
        )


def _labels(paths: tuple[pathlib.Path, ...]) -> list[str]:
    names = [path.resolve().name for path in paths]
    return [
        str(path) if names.count(name) > 1 else name
        for path, name in zip(paths, names, strict=True)
    ]


def _read(folder: pathlib.Path) -> _Run:
    path = folder / "metrics.jsonl"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there: give the output folder of `equistar meta-train`, after "
            "its first meta-step."
        )
    rows, complaints = read_json_lines(path)
    rows, odd = _of_steps(path, rows, 1, lambda row: [row.get("meta_loss")])
    complaints += odd
    if not rows:
        raise ValueError(f"{path} holds no meta-step yet: try again when the run has one.")
    losses = np.full(max(row["step"] for row in rows), np.nan)
    for row in rows:
        losses[row["step"] - 1] = _number(row.get("meta_loss"))
    evaluations, more = _evaluations(folder / "evaluation.jsonl")
    return _Run(losses, _steps(folder), evaluations, complaints + more)


def _evaluations(
    path: pathlib.Path,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str]]:
    if not path.is_file():
        return {}, []
    rows, complaints = read_json_lines(path)
    losses = lambda row: row["mean_loss"].values()
    rows, odd = _of_steps(path, rows, 0, losses)
    complaints += odd
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        for name, loss in row["mean_loss"].items():
            points.setdefault(name, []).append((row["step"], _number(loss)))
    curves = {name: np.array(p, np.float64).T for name, p in points.items()}
    return {name: (steps, losses) for name, (steps, losses) in curves.items()}, complaints


def _of_steps(
    path: pathlib.Path,
    rows: list[dict[str, Any]],
    first: int,
    losses: Callable[[dict[str, Any]], Any],
) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that are of a meta-step and hold numbers, and what is wrong with others."""
    whole, complaints = [], []
    for row in rows:
        try:
            if not isinstance(row.get("step"), int) or row["step"] < first:
                raise ValueError("no such step")
            for loss in losses(row):
                _number(loss)
            whole.append(row)
        except (AttributeError, KeyError, TypeError, ValueError):
            complaints.append(f"{path}: a line of {row!s:.60} is none of a run's.")
    return whole, complaints


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _steps(folder: pathlib.Path) -> int | None:
    """How many meta-steps the run is to make, if its recipe says so."""
    try:
        return int(json.loads((folder / "recipe.json").read_text())["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
