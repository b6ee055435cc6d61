"""Data that tasks hold on the device, and the real data that every install has."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ._base import Split


class Examples(eqx.Module):
    """Inputs in their storage type, with one target each: a class, or numbers."""

    inputs: Shaped[Array, "n ..."]
    targets: Shaped[Array, "n ..."]

    def __check_init__(self):
        n, m = len(self.inputs), len(self.targets)
        if n != m or n == 0:
            raise ValueError(
                f"Examples need as many targets as inputs, and some; got {n} inputs and "
                f"{m} targets."
            )

    def batch(
        self, size: int, *, key: PRNGKeyArray
    ) -> tuple[Shaped[Array, "batch ..."], Shaped[Array, "batch ..."]]:
        """`size` examples drawn with replacement."""
        index = jr.randint(key, (size,), 0, len(self.targets))
        return self.inputs[index], self.targets[index]


class Dataset(eqx.Module):
    """A classification data set in four splits.

    **Attributes:**

    - `splits`: the examples of each `Split`, by its value.
    - `classes`: number of classes.
    - `scale`: inputs are multiplied by it when they are used (1/255 for bytes).
    """

    splits: dict[str, Examples]
    classes: int = eqx.field(static=True)
    scale: float = eqx.field(static=True)

    def __getitem__(self, split: Split) -> Examples:
        return self.splits[split.value]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self[Split.TRAIN].inputs.shape[1:]

    def prepare(self, inputs: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Inputs as floating-point numbers, scaled."""
        return inputs.astype(jnp.zeros(()).dtype) * self.scale


class RegressionDataset(eqx.Module):
    """Inputs and the numbers to predict from them, in four splits.

    **Attributes:**

    - `splits`: the examples of each `Split`, by its value; targets are rows of numbers.
    - `scale`: inputs are multiplied by it when they are used (1/255 for bytes).
    """

    splits: dict[str, Examples]
    scale: float = eqx.field(static=True)

    def __getitem__(self, split: Split) -> Examples:
        return self.splits[split.value]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self[Split.TRAIN].inputs.shape[1:]

    @property
    def out_size(self) -> int:
        """Numbers in one target."""
        return self[Split.TRAIN].targets.shape[1]

    def prepare(self, inputs: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Inputs as floating-point numbers, scaled."""
        return inputs.astype(jnp.zeros(()).dtype) * self.scale


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

    **Raises:**

    `ValueError` if there are fewer than 10 examples, if inputs or labels are not finite
    numbers of the right kind, or if their numbers differ.
    """
    inputs, labels = np.asarray(inputs), np.asarray(labels)
    _check_examples(inputs, labels, "label")
    if not np.issubdtype(labels.dtype, np.number):
        raise ValueError(
            f"Labels must be integers from 0 up; got dtype {labels.dtype}: pass "
            "`np.unique(labels, return_inverse=True)[1]`."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(
            f"Labels must be integers from 0 up; got dtype {labels.dtype}, the smallest "
            f"being {labels.min()}."
        )
    splits = _split(inputs, labels.astype(np.int32), seed)
    return Dataset(splits, int(labels.max()) + 1, scale)


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
    - `targets`: numbers to predict, one or a row for each example; best of mean zero and
        variance one.
    - `scale`: inputs are multiplied by it when they are used.
    - `seed`: of the split: 70 % train and 10 % for each of the other three.

    **Raises:**

    `ValueError` if there are fewer than 10 examples, if inputs or targets are not finite
    numbers, or if their numbers differ.
    """
    inputs, targets = np.asarray(inputs), np.asarray(targets)
    _check_examples(inputs, targets, "target")
    _check_finite(targets, "Targets")
    rows = targets.reshape(len(targets), -1).astype(np.float32)
    return RegressionDataset(_split(inputs, rows, seed), scale)


def _check_examples(inputs: np.ndarray, targets: np.ndarray, name: str) -> None:
    n = len(targets)
    if len(inputs) != n or n < 10:
        raise ValueError(
            f"A data set needs at least 10 examples and one {name} for each; got "
            f"{len(inputs)} inputs and {n} {name}s."
        )
    if inputs.ndim < 2:
        raise ValueError(
            "Inputs need an axis of examples and at least one of numbers: pass "
            "`inputs[:, None]` for one number each."
        )
    _check_finite(inputs, "Inputs")


def _check_finite(x: np.ndarray, name: str) -> None:
    if not np.issubdtype(x.dtype, np.number) or not np.all(np.isfinite(x)):
        raise ValueError(
            f"{name} must be finite numbers: drop or fill what is missing first."
        )


def _split(inputs: np.ndarray, targets: np.ndarray, seed: int) -> dict[str, Examples]:
    n = len(targets)
    order = np.asarray(jr.permutation(jr.key(seed), n))
    bounds = [0, round(0.7 * n), round(0.8 * n), round(0.9 * n), n]
    if inputs.dtype == np.float64:
        inputs = inputs.astype(np.float32)
    parts = zip(Split, bounds[:-1], bounds[1:], strict=True)
    return {
        split.value: Examples(
            jax.device_put(inputs[order[low:high]]), jnp.asarray(targets[order[low:high]])
        )
        for split, low, high in parts
    }


def digits(seed: int = 0) -> Dataset:
    """scikit-learn's bundled digits: 1,797 grey images of 8x8, 10 classes.

    **Arguments:**

    - `seed`: of the split into train, inner_valid, outer_valid and test.
    """
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    images = bunch.images.astype(np.uint8)  # pyright: ignore
    labels = bunch.target  # pyright: ignore
    return dataset_from_arrays(images, labels, scale=1 / 16, seed=seed)
