"""What is read off training curves: plain arithmetic on arrays of (seeds, steps)."""

import math

import jax.random as jr
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from .._smoothing import last_tenth


_RESAMPLES = 2000
_LEVELS = 0.025, 0.975


def final_losses(losses: Float[np.ndarray, "seeds steps"]) -> Float[np.ndarray, " seeds"]:
    """The mean over the last 10 % of the steps, at least one."""
    return mean_losses(last_tenth(losses))


def mean_losses(losses: Float[np.ndarray, "seeds steps"]) -> Float[np.ndarray, " seeds"]:
    """The mean over all steps; infinite where a loss is not finite."""
    means = np.asarray(np.mean(losses, axis=1, dtype=np.float64))
    return np.where(np.isfinite(means), means, np.inf)


def diverged(losses: Float[np.ndarray, "seeds steps"]) -> Bool[np.ndarray, " seeds"]:
    """Where a loss is not finite, or the last 10 % lie above the first loss."""
    finite = np.all(np.isfinite(losses), axis=1)
    # On one step there is no end to compare with.
    above = (final_losses(losses) > losses[:, 0]) & (losses.shape[1] > 1)
    return ~finite | above


def first_reached(
    losses: Float[np.ndarray, "seeds steps"], targets: Float[np.ndarray, " seeds"]
) -> Float[np.ndarray, " seeds"]:
    """The first step, counted from 1, by which the loss is as low as the target.

    The loss is the mean over the 2 % of the steps that end there, or 10 steps where that
    is more (but never more than 10 % of them), since that of a single minibatch may be low
    by chance. Infinite where the target is not reached.
    """
    steps = losses.shape[1]
    width = max(1, min(steps // 10, max(10, steps // 50)))
    # A step that is not finite spoils the windows that hold it, and none after them.
    padded = np.where(np.isfinite(losses), losses, np.inf).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1)
    low = np.mean(windows, axis=-1) <= targets[:, None]
    first = np.argmax(low, axis=1) + float(width)
    return np.where(np.any(low, axis=1) & np.isfinite(targets), first, np.inf)


def log_ratios(
    means: Float[np.ndarray, " seeds"], reference: Float[np.ndarray, " seeds"]
) -> Float[np.ndarray, " seeds"]:
    """The logarithm of the ratio of mean losses, seed by seed.

    +inf where the first diverged, NaN where the reference did or a loss is not positive.
    """
    valid = np.isfinite(reference) & (reference > 0) & (means > 0)
    numerator = np.where(valid, means, 1.0)
    return np.where(valid, np.log(numerator / np.where(valid, reference, 1.0)), np.nan)


def quartiles(values: np.ndarray) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile, NaN left out.

    Between a finite and an infinite value lies the infinite one.
    """
    ordered = np.sort(values[~np.isnan(values)])
    if len(ordered) == 0:
        return np.nan, np.nan, np.nan
    low, middle, high = (_quantile(ordered, share) for share in (0.25, 0.5, 0.75))
    return low, middle, high


def _quantile(ordered: np.ndarray, share: float) -> float:
    place = share * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    weight = place - math.floor(place)
    return float(below if below == above else (1 - weight) * below + weight * above)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of what is left when a quarter is cut off each end (rounded down)."""
    cut = values.shape[-1] // 4
    middle = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut]
    return np.asarray(np.mean(middle, axis=-1))


def bootstrap_interval(
    values: Float[np.ndarray, "tasks seeds"], *, key: PRNGKeyArray
) -> tuple[float, float]:
    """The 95 % interval of all entries' interquartile mean, by the percentile bootstrap.

    Tasks are drawn with replacement, and for each drawn task its seeds are.
    """
    tasks, seeds = values.shape
    task_key, seed_key = jr.split(key)
    rows = np.asarray(jr.randint(task_key, (_RESAMPLES, tasks, 1), 0, tasks))
    columns = np.asarray(jr.randint(seed_key, (_RESAMPLES, tasks, seeds), 0, seeds))
    drawn = values[rows, columns].reshape(_RESAMPLES, -1)
    means = interquartile_mean(drawn)
    method = "linear" if np.all(np.isfinite(means)) else "nearest"
    low, high = np.quantile(means, _LEVELS, method=method)
    return float(low), float(high)
