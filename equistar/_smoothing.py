"""The moving average that meta-losses are shown and compared by."""

import numpy as np


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

    `ValueError` if `decay` is not in [0, 1).
    """
    from scipy.signal import lfilter

    if not 0 <= decay < 1:
        raise ValueError(f"`decay` must be in [0, 1); got {decay}.")
    values = np.asarray(values, np.float64)
    known = np.isfinite(values)
    total = lambda x: np.asarray(lfilter([1.0], [1.0, -decay], x))
    weights = total(known.astype(np.float64))
    sums = total(np.where(known, values, 0.0))
    return np.divide(sums, weights, out=np.full_like(sums, np.nan), where=weights > 0)
