"""Figures, as PNG files. Nothing is ever shown on a screen."""

import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _files
from ._smoothing import smoothed as smoothed, SMOOTHING


def training_curves(
    path: str | os.PathLike[str],
    curves: Mapping[str, np.ndarray],
    *,
    title: str = "",
    ylabel: str = "training loss",
    smoothing: int = 10,
) -> None:
    """Draws the median curve over seeds of each entry, with its quartiles, as a PNG file.

    **Arguments:**

    - `path`: the PNG file to write.
    - `curves`: by label, arrays of shape (seeds, steps).
    - `title`, `ylabel`: text of the figure.
    - `smoothing`: steps that are averaged into one point, at most.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for label, curve in curves.items():
        curve = np.asarray(curve, np.float64)
        # Of nearly equal widths, so that none is of a few steps left over.
        points = max(1, math.ceil(curve.shape[1] / max(1, smoothing)))
        bins = np.array_split(curve, points, axis=1)
        binned = np.stack([each.mean(1) for each in bins], 1)
        widths = np.array([each.shape[1] for each in bins])
        steps = np.cumsum(widths) - widths / 2
        # A diverged seed counts as worst, so that quantiles stay defined.
        worst = np.where(np.isfinite(binned), binned, np.inf)
        quantiles = np.quantile(worst, [0.25, 0.5, 0.75], axis=0, method="nearest")
        low, middle, high = np.where(np.isfinite(quantiles), quantiles, np.nan)
        (line,) = axes.plot(steps, middle, label=as_label(label))
        axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
    axes.set(xlabel="step", ylabel=ylabel, yscale=scale_of(axes), title=as_label(title))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    save_figure(figure, path)


def meta_training_curves(
    path: str | os.PathLike[str],
    meta_losses: Mapping[str, np.ndarray],
    evaluations: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    *,
    title: str = "",
    smoothing: float = SMOOTHING,
) -> None:
    """Draws the meta-loss of runs, raw and smoothed, and their evaluations, as a PNG file.

    **Arguments:**

    - `path`: the PNG file to write.
    - `meta_losses`: by label, the meta-loss of each meta-step.
    - `evaluations`: by label, meta-steps and losses; drawn in a separate panel.
    - `title`: text of the figure.
    - `smoothing`: decay of the moving average; see [`equistar.plot.smoothed`][].
    """
    from matplotlib.figure import Figure

    panels = 2 if evaluations else 1
    figure = Figure(figsize=(1.5 + 5 * panels, 4.2), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for label, losses in meta_losses.items():
        losses = np.asarray(losses, np.float64)
        steps = np.arange(1, len(losses) + 1)
        average = smoothed(losses, smoothing)
        (line,) = axes[0].plot(steps, average, label=as_label(label), zorder=2)
        axes[0].plot(steps, losses, color=line.get_color(), alpha=0.2, linewidth=0.7)
    axes[0].set(ylabel="meta-loss", title=as_label(title))
    for label, (steps, losses) in (evaluations or {}).items():
        axes[1].plot(steps, losses, marker=".", label=as_label(label))
        axes[1].set(ylabel="mean training loss", title="evaluation on fresh networks")
    for panel in axes:
        panel.set(xlabel="meta-step", yscale=scale_of(panel))
        panel.grid(alpha=0.3)
        panel.legend(frameon=False, fontsize="small")
    save_figure(figure, path)


def as_label(text: str) -> str:
    """Escapes a name, so that matplotlib shows it as it is.

    **Arguments:**

    - `text`: the name. Dollar signs would start formulas, and matplotlib leaves out names
        that begin with an underscore.

    **Returns:**

    The text to pass to matplotlib.
    """
    return f"{' ' * text.startswith('_')}{text}".replace("$", r"\$")


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Writes a figure to a file, atomically: the old one or the new one is there.

    **Arguments:**

    - `figure`: of matplotlib.
    - `path`: the file; its ending names the format, and without one it is PNG.
    """
    path = pathlib.Path(path)
    kind = path.suffix[1:] or "png"
    _files.write_atomically(path, lambda file: figure.savefig(file, dpi=150, format=kind))


def scale_of(axes: Any) -> str:
    """The scale that shows all lines: logarithmic, unless one is below zero or only zero.

    Of a line without finite values nothing is shown.

    **Arguments:**

    - `axes`: of matplotlib, with the lines.

    **Returns:**

    `"log"` or `"linear"`, for matplotlib's `yscale`.
    """
    lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    finite = [y[np.isfinite(y)] for y in lines]
    # A loss that ends at zero leaves the axis there, and is seen before.
    shown = [np.all(y >= 0) and np.any(y > 0) for y in finite if y.size]
    return "log" if shown and all(shown) else "linear"
