"""Data sets of arrays of one's own."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._kinds import as_seed
from .._warn import warn
from ._base import split_bounds
from ._data import Dataset, Examples, RegressionDataset
from ._split_checks import checked_scale


def dataset_from_arrays(
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    scale: float = 1.0,
    seed: int = 0,
) -> Dataset:
    """A labelled data set from arrays of your own, split at random.

    **Arguments:**

    - `inputs`: one input for each example, along the first axis.
    - `labels`: classes 0, 1, ...
    - `scale`: inputs are multiplied by it when they are used.
    - `seed`: of the split: 70 % train and 10 % for each of the other three.

    **Returns:**

    A [`equistar.tasks.Dataset`][]. There is a warning if a class does not occur.

    **Raises:**

    `ValueError` if there are fewer than 10 examples, if inputs or labels are not finite
    numbers of the right kind or do not fit into 32 bits, if there are not as many labels as
    inputs, if there is only one class, or if `scale` is not finite.
    """
    inputs, labels = _whole(inputs, "Inputs"), _whole(labels, "Labels")
    _check_examples(inputs, labels, "label")
    check_labels(labels)
    low, high = int(labels.min()), int(labels.max())
    if not 0 <= low <= high < np.iinfo(np.int32).max:
        raise ValueError(
            f"Labels must be classes 0, 1, ...; got {low} to {high}: pass "
            "`np.unique(labels, return_inverse=True)[1]`."
        )
    if low == high:
        raise ValueError(f"Labels must be of two classes at least; all of these are {low}.")
    occurring = len(np.unique(labels))
    if occurring <= high:
        warn(
            f"Of the classes 0, ..., {high} only {occurring} occur in the labels: if the "
            "others never will, pass `np.unique(labels, return_inverse=True)[1]`."
        )
    splits = _split(stored(inputs, "Inputs"), labels.astype(np.int32), seed)
    return Dataset(splits, high + 1, checked_scale(scale))


def regression_from_arrays(
    inputs: np.ndarray,
    targets: np.ndarray,
    *,
    scale: float = 1.0,
    seed: int = 0,
) -> RegressionDataset:
    """A data set for regression from arrays of your own, split at random.

    **Arguments:**

    - `inputs`: one input for each example, along the first axis.
    - `targets`: numbers to predict, one or a row for each example; best with mean zero and
        variance one.
    - `scale`: inputs are multiplied by it when they are used.
    - `seed`: of the split: 70 % train and 10 % for each of the other three.

    **Returns:**

    A [`equistar.tasks.RegressionDataset`][].

    **Raises:**

    `ValueError` if there are fewer than 10 examples, if inputs or targets are not finite
    real numbers or do not fit into 32 bits, if there are not as many targets as inputs, or
    if `scale` is not finite.
    """
    inputs, targets = _whole(inputs, "Inputs"), _whole(targets, "Targets")
    _check_examples(inputs, targets, "target")
    if np.issubdtype(targets.dtype, np.integer):
        targets = targets.astype(np.float64)
    rows = stored(targets.reshape(len(targets), -1), "Targets").astype(np.float32)
    splits = _split(stored(inputs, "Inputs"), rows, seed)
    return RegressionDataset(splits, checked_scale(scale))


# As an array a masked one has what stands below its mask.
def _whole(x: Any, name: str) -> np.ndarray:
    if np.ma.is_masked(x):
        raise ValueError(
            f"{name} have entries that are masked: drop or fill what is missing first, say "
            "by `x.filled(x.mean())`."
        )
    return np.asarray(x)


def _check_examples(inputs: np.ndarray, targets: np.ndarray, name: str) -> None:
    if inputs.ndim < 2:
        raise ValueError(
            "Inputs need an axis of examples and at least one of numbers: pass "
            f"`inputs[:, None]` for one number each; got shape {inputs.shape}."
        )
    n = len(inputs)
    if n < 10 or targets.ndim < 1 or len(targets) != n or targets.size == 0:
        raise ValueError(
            f"A data set needs at least 10 examples and one {name} for each; got inputs of "
            f"shape {inputs.shape} and {name}s of {targets.shape}."
        )


def check_labels(labels: np.ndarray) -> None:
    """Raises a `ValueError` unless they are whole numbers along one axis."""
    if labels.ndim != 1:
        raise ValueError(
            f"Labels must be one whole number for each example; got shape {labels.shape}: "
            "pass `labels.argmax(1)` for one-hot rows, `labels[:, 0]` for one column."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"Labels must be integers from 0 up; got dtype {labels.dtype}: pass "
            "`np.unique(labels, return_inverse=True)[1]`."
        )


_STORAGE = {
    np.floating: np.float32,
    np.signedinteger: np.int32,
    np.unsignedinteger: np.uint32,
}


def stored(x: np.ndarray, name: str) -> np.ndarray:
    """Finite real numbers in their storage type, of 32 bits at most."""
    if x.dtype == bool:
        return x.astype(np.uint8)
    kinds = [kind for kind in _STORAGE if jnp.issubdtype(x.dtype, kind)]
    if not kinds or (kinds[0] is np.floating and not np.all(np.isfinite(x))):
        raise ValueError(
            f"{name} must be finite real numbers: drop or fill what is missing first; got "
            f"dtype {x.dtype}."
        )
    if x.dtype.itemsize <= 4:
        # Files of IDX, FITS and HDF5 hold the bytes of other machines, which JAX refuses.
        return x.astype(x.dtype.newbyteorder("="), copy=False)
    widest = jnp.finfo if kinds[0] is np.floating else jnp.iinfo
    limits = widest(_STORAGE[kinds[0]])
    if x.size and (x.min() < limits.min or x.max() > limits.max):
        raise ValueError(
            f"{name} are kept as {limits.dtype}, and some are beyond it (from {x.min():g} "
            f"to {x.max():g}): scale or standardise them first."
        )
    return x.astype(_STORAGE[kinds[0]])


def _split(inputs: np.ndarray, targets: np.ndarray, seed: int) -> dict[str, Examples]:
    seed = as_seed(seed)
    order = np.asarray(jr.permutation(jr.key(seed), len(targets)))
    return {
        split.value: Examples(
            jax.device_put(inputs[order[low:high]]), jnp.asarray(targets[order[low:high]])
        )
        for split, low, high in split_bounds(len(targets))
    }
