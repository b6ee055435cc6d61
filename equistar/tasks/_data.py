"""Data that tasks hold on the device, and the real data that every install has."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from ._base import Split


class Examples(eqx.Module):
    """Inputs in their storage type, with one label each."""

    inputs: Shaped[Array, "n ..."]
    labels: Int[Array, " n"]

    def __check_init__(self):
        n, m = len(self.inputs), len(self.labels)
        if n != m or n == 0:
            raise ValueError(
                f"Examples need as many labels as inputs, and some; got {n} inputs and "
                f"{m} labels."
            )

    def batch(
        self, size: int, *, key: PRNGKeyArray
    ) -> tuple[Shaped[Array, "batch ..."], Int[Array, " batch"]]:
        """`size` examples drawn with replacement."""
        index = jr.randint(key, (size,), 0, len(self.labels))
        return self.inputs[index], self.labels[index]


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
    def in_size(self) -> int:
        """Numbers in one input."""
        return int(np.prod(self[Split.TRAIN].inputs.shape[1:]))

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
    """A data set from arrays of your own, split at random.

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
    n = len(labels)
    if len(inputs) != n or n < 10:
        raise ValueError(
            f"A data set needs at least 10 examples and one label for each; got "
            f"{len(inputs)} inputs and {n} labels."
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise ValueError(f"Labels must be integers from 0 up; got dtype {labels.dtype}.")
    if not np.issubdtype(inputs.dtype, np.number) or not np.all(np.isfinite(inputs)):
        raise ValueError(
            "Inputs must be finite numbers: drop or fill what is missing first."
        )
    order = np.asarray(jr.permutation(jr.key(seed), n))
    bounds = [0, round(0.7 * n), round(0.8 * n), round(0.9 * n), n]
    parts = {
        split.value: order[low:high]
        for split, low, high in zip(Split, bounds[:-1], bounds[1:], strict=True)
    }
    if inputs.dtype == np.float64:
        inputs = inputs.astype(np.float32)
    splits = {
        name: Examples(jax.device_put(inputs[i]), jnp.asarray(labels[i], jnp.int32))
        for name, i in parts.items()
    }
    return Dataset(splits, int(labels.max()) + 1, scale)


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
