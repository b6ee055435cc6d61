"""Data that tasks hold on the device."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from .._kinds import as_int, check_count, check_kind
from ._base import Split
from ._split_checks import (
    check_alike,
    check_splits,
    check_whole_numbers,
    checked_scale,
)


class Examples(eqx.Module):
    """Inputs in their storage type, with one target each: a class, or numbers.

    **Attributes:**

    - `inputs`: with a leading axis of examples.
    - `targets`: labels, or rows of numbers.

    **Raises:**

    `ValueError` if they are no arrays, or if there are not as many targets as inputs, or
    none.
    """

    inputs: Shaped[Array, "n ..."]
    targets: Shaped[Array, "n ..."]

    def __check_init__(self):
        for name in ("inputs", "targets"):
            check_kind(getattr(self, name), jax.Array | np.ndarray, f"`{name}`", "an array")
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
        # NumPy's cannot be indexed inside of jit.
        return jnp.asarray(self.inputs)[index], jnp.asarray(self.targets)[index]


class AbstractDataset(eqx.Module):
    """Inputs with one target each, in four splits."""

    splits: eqx.AbstractVar[dict[str, Examples]]
    scale: eqx.AbstractVar[float]

    def __getitem__(self, split: Split | str) -> Examples:
        return self.splits[Split(split).value]

    @property
    def in_shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return self[Split.TRAIN].inputs.shape[1:]

    def prepare(self, inputs: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Inputs as floating-point numbers, scaled."""
        return inputs.astype(jnp.zeros(()).dtype) * self.scale


class Dataset(AbstractDataset):
    """A classification data set in four splits.

    **Attributes:**

    - `splits`: the examples of each `Split`, by its value.
    - `classes`: number of classes.
    - `scale`: inputs are multiplied by it when they are used (1/255 for bytes).

    **Raises:**

    `ValueError` if a split is missing, inputs differ in shape or dtype between splits,
    there are fewer than two classes, a label is none of them, or `scale` is not finite.
    """

    splits: dict[str, Examples]
    classes: int = eqx.field(converter=as_int, static=True)
    scale: float = eqx.field(converter=checked_scale, static=True)

    # To a type checker the base's fields would come first.
    def __init__(self, splits: dict[str, Examples], classes: int, scale: float):
        self.splits = splits
        self.classes = classes
        self.scale = scale

    def __check_init__(self):
        _check_inputs(self.splits, "Dataset")
        check_count(self.classes, "classes", 2)
        labels = {key: part.targets for key, part in self.splits.items()}
        check_whole_numbers(labels, self.classes, "Labels")


class RegressionDataset(AbstractDataset):
    """Inputs and the numbers to predict from them, in four splits.

    **Attributes:**

    - `splits`: the examples of each `Split`, by its value; targets are rows of numbers.
    - `scale`: inputs are multiplied by it when they are used (1/255 for bytes).

    **Raises:**

    `ValueError` if a split is missing, inputs or targets differ in shape or dtype between
    splits, targets are not rows of floating-point numbers, or `scale` is not finite.
    """

    splits: dict[str, Examples]
    scale: float = eqx.field(converter=checked_scale, static=True)

    def __check_init__(self):
        _check_inputs(self.splits, "RegressionDataset")
        targets = {key: part.targets for key, part in self.splits.items()}
        check_alike(targets, "Targets")
        shown = targets[Split.TRAIN.value]
        if (
            shown.ndim != 2
            or shown.size == 0
            or not jnp.issubdtype(shown.dtype, jnp.floating)
        ):
            raise ValueError(
                "Targets must be rows of floating-point numbers, one for each input; got "
                f"{shown.dtype} of shape {shown.shape}."
            )

    @property
    def out_size(self) -> int:
        """Numbers in one target."""
        return self[Split.TRAIN].targets.shape[1]


def _check_inputs(splits: dict[str, Examples], name: str) -> None:
    check_splits(splits, name, Examples)
    check_alike({key: part.inputs for key, part in splits.items()}, "Inputs")
