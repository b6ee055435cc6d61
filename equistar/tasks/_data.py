"""Data that tasks hold on the device."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from ._base import Split


class Examples(eqx.Module):
    """Inputs in their storage type, with one target each: a class, or numbers.

    **Attributes:**

    - `inputs`: with a leading axis of examples.
    - `targets`: labels, or rows of numbers.

    **Raises:**

    `ValueError` if there are not as many targets as inputs, or none.
    """

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
        return self.splits[Split(split).value]

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
        return self.splits[Split(split).value]

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
