"""The figures of a report."""

import pathlib
from typing import Any

import numpy as np

from .. import plot
from ._results import Results
from ._statistics import quartiles


def draw_curves(path: pathlib.Path, results: Results, task: str, steps: int) -> None:
    """The training curves of all optimizers on a task."""
    runs = [r for r in results.runs if r.task == task and r.steps == steps]
    plot.training_curves(
        path,
        {r.optimizer: r.losses for r in runs},
        title=f"{task}, {steps:,} steps",
        smoothing=max(1, steps // 100),
    )


def draw_held_out(path: pathlib.Path, results: Results, task: str, steps: int) -> None:
    """The median held-out loss over seeds of all optimizers on a task."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for run in results.runs:
        if run.task == task and run.steps == steps:
            points = run.held_out.shape[1]
            worst = np.where(np.isfinite(run.held_out), run.held_out, np.inf)
            middle = np.median(worst, axis=0)
            where = steps * np.arange(1, points + 1) / points
            shown = np.where(np.isfinite(middle), middle, np.nan)
            marker = "." if points <= 20 else ""
            axes.plot(where, shown, marker=marker, label=plot.as_label(run.optimizer))
    axes.set(xlabel="step", ylabel="held-out loss", yscale=plot.scale_of(axes))
    axes.set_title(plot.as_label(f"{task}, {steps:,} steps, held out"))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    plot.save_figure(figure, path)


def draw_summary(path: pathlib.Path, results: Results) -> None:
    """The ratios of mean loss to the reference's: a panel for each number of steps."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    horizons, names = results.horizons, results.optimizers
    height = 1.4 + 0.42 * len(names)
    figure = Figure(figsize=(2.2 + 3.4 * len(horizons), height), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(horizons), sharey=True))
    for axes, steps in zip(panels, horizons, strict=True):
        for place, name in enumerate(names):
            _draw_row(axes, results, name, steps, place)
        axes.axvline(1, color="grey", linewidth=0.8)
        axes.set(xscale="log", title=f"{steps:,} steps")
        low, high = axes.get_xlim()
        subs = (1, 2, 5) if high < 200 * low else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=9))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3, axis="x")
    panels[0].set_yticks(range(len(names)), [plot.as_label(n) for n in names])
    panels[0].invert_yaxis()
    figure.supxlabel(plot.as_label(f"mean training loss / that of {results.reference}"))
    plot.save_figure(figure, path)


def _draw_row(axes: Any, results: Results, name: str, steps: int, place: int) -> None:
    color = f"C{place % 10}"
    for task in results.tasks:
        run = results.find(task, name, steps)
        if run is not None:
            ratios = results.log_ratio(run)
            middle = np.nan if np.any(np.isnan(ratios)) else np.exp(quartiles(ratios)[1])
            if np.isfinite(middle):
                axes.plot(middle, place, "o", color=color, alpha=0.35, markersize=4)
    found = results.summary(name, steps)
    if np.isfinite(found.log_ratio):
        ends = np.exp(np.array([found.low, found.high]))
        kept = ends[np.isfinite(ends)]
        axes.plot(kept, np.full(len(kept), place), "-", color=color)
        axes.plot(np.exp(found.log_ratio), place, "D", color=color)
    elif np.isposinf(found.log_ratio):
        where = dict(xycoords=("axes fraction", "data"), ha="right", va="center")
        axes.annotate("diverges", (0.98, place), **where)
