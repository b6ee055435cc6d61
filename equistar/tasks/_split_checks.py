"""What must hold of the four splits of a data set."""

import math
from collections.abc import Mapping
from typing import Any

import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._kinds import as_number
from ._base import Split


def check_splits(splits: Any, name: str, *kinds: type) -> None:
    """Raises a `ValueError` unless there are the four splits, each of one of `kinds`."""
    wanted = [split.value for split in Split]
    if not isinstance(splits, Mapping) or set(splits) != set(wanted):
        got = sorted(map(str, splits)) if isinstance(splits, Mapping) else splits
        raise ValueError(
            f"`splits` of a {name} must have the four keys {wanted}; got {got!r:.80}."
        )
    for key, value in splits.items():
        if not isinstance(value, kinds):
            wants = " or ".join(k.__name__ for k in kinds)
            raise ValueError(
                f"`splits['{key}']` of a {name} must be {wants}; got "
                f"{type(value).__name__}."
            )


def check_alike(arrays: Mapping[str, Any], what: str) -> None:
    """Raises a `ValueError` unless the arrays of all splits hold the same kind of row."""
    rows = {key: (jnp.shape(x)[1:], jnp.result_type(x)) for key, x in arrays.items()}
    if len(set(rows.values())) > 1:
        seen = ", ".join(f"{key} {d}{list(shape)}" for key, (shape, d) in rows.items())
        raise ValueError(
            f"{what} must have one shape and one dtype in all splits; got {seen}."
        )


def check_whole_numbers(arrays: Mapping[str, Any], below: int, what: str) -> None:
    """Raises a `ValueError` unless all are vectors of whole numbers in [0, below)."""
    for key, x in arrays.items():
        if jnp.ndim(x) != 1 or not jnp.issubdtype(jnp.result_type(x), jnp.integer):
            raise ValueError(
                f"{what} must be whole numbers along one axis; those of '{key}' are "
                f"{jnp.result_type(x)} of shape {jnp.shape(x)}."
            )
        if not _is_known(x):
            continue
        values = np.asarray(x)
        low, high = int(values.min(initial=0)), int(values.max(initial=0))
        if low < 0 or high >= below:
            raise ValueError(
                f"{what} must be from 0 to {below - 1}; those of '{key}' go from {low} to "
                f"{high}."
            )


def checked_scale(scale: Any) -> float:
    """What inputs are multiplied by; a `ValueError` if it is no finite number."""
    value = as_number(scale, "`scale`", "1 / 255")
    if not math.isfinite(value):
        raise ValueError(f"`scale` must be a finite number; got {value}.")
    return value


def clipping_bound(losses: Float[Array, "..."], what: str) -> float:
    """1.5 times the mean loss of an output of zeros, to which meta-training clips.

    Raises a `ValueError` if it is none, for what is learned is zero or not finite.
    """
    mean = float(jnp.mean(losses))
    if mean == 0:
        raise ValueError(f"All {what} of the training split are zero: nothing is learned.")
    if not math.isfinite(mean):
        raise ValueError(
            f"The {what} of the training split, or their squares, are not finite: drop or "
            f"fill what is missing, and standardise the {what}."
        )
    return 1.5 * mean


# Traced values are not, nor are those on the devices of other processes.
def _is_known(x: Any) -> bool:
    traced = isinstance(x, jax.core.Tracer)
    return not traced and getattr(x, "is_fully_addressable", True)
