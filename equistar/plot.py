"""Figures, as PNG files. Nothing is ever shown on a screen."""

import os
from collections.abc import Mapping

import numpy as np


def training_curves(
    path: str | os.PathLike,
    curves: Mapping[str, np.ndarray],
    *,
    title: str = "",
    ylabel: str = "training loss",
    smoothing: int = 10,
) -> None:
    """Draws the median curve over seeds, with its quartiles, of each entry.

    **Arguments:**

    - `path`: the PNG file to write.
    - `curves`: by label, arrays of shape (seeds, steps).
    - `title`, `ylabel`: text of the figure.
    - `smoothing`: steps that are averaged into one point.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    positive = False
    for label, curve in curves.items():
        curve = np.asarray(curve, np.float64)
        width = max(1, min(smoothing, curve.shape[1]))
        points = curve.shape[1] // width
        binned = curve[:, : points * width].reshape(len(curve), points, width).mean(-1)
        steps = (np.arange(points) + 0.5) * width
        # A diverged seed counts as worst, so that quantiles stay defined.
        worst = np.where(np.isfinite(binned), binned, np.inf)
        quantiles = np.quantile(worst, [0.25, 0.5, 0.75], axis=0, method="nearest")
        low, middle, high = np.where(np.isfinite(quantiles), quantiles, np.nan)
        positive |= bool(np.any(middle > 0))
        (line,) = axes.plot(steps, middle, label=label)
        axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color())
    scale = "log" if positive else "linear"
    axes.set(xlabel="step", ylabel=ylabel, yscale=scale, title=title)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=150)
