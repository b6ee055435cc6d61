"""What curves are shown and compared by: a moving average, and how they end."""

import math
from typing import TypeVar

import numpy as np
from jaxtyping import Array


_Values = TypeVar("_Values", np.ndarray, Array)

SMOOTHING = 0.98
"""Decay of the exponential moving average in the STAR paper's plots."""


def smoothed(values: np.ndarray, decay: float = SMOOTHING) -> np.ndarray:
    """An exponential moving average with the bias of its start corrected.

    $$\\bar x_t = \\sum_{s \\le t} d^{t - s} x_s \\big/ \\sum_{s \\le t} d^{t - s}$$

    Values that are not finite are left out of both sums.

    **Arguments:**

    - `values`: one for each step.
    - `decay`: $d$, in [0, 1).

    **Returns:**

    An array of as many numbers; NaN before the first finite value.

    **Raises:**

    `ValueError` if `decay` is not in [0, 1), or `values` are no vector.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"`decay` must be in [0, 1); got {decay}.")
    if np.ndim(values) != 1:
        raise ValueError(
            "`values` must be a vector, one for each step: smooth each row of a matrix "
            f"apart; got shape {np.shape(values)}."
        )
    smoother = Smoother(decay)
    return np.array([smoother(float(value)) for value in values], np.float64)


class Smoother:
    """`smoothed`, one value after the other."""

    def __init__(self, decay: float = SMOOTHING):
        self.decay = decay
        self.total, self.weight = 0.0, 0.0

    def __call__(self, value: float) -> float:
        """The average of the values so far; NaN before the first finite one."""
        known = math.isfinite(value)
        self.total = self.decay * self.total + (value if known else 0.0)
        self.weight = self.decay * self.weight + float(known)
        return self.total / self.weight if self.weight > 0 else math.nan


def last_tenth(values: _Values) -> _Values:
    """The last 10 % of the last axis, at least one."""
    return values[..., -max(1, values.shape[-1] // 10) :]
