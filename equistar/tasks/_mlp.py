"""Image or table classification by a multi-layer perceptron."""

import itertools
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._base import AbstractTask, Split
from ._data import Dataset, digits


class MLPClassification(AbstractTask):
    """Cross-entropy of a multi-layer perceptron with relu on a data set.

    The parameters are the arrays of a list of `eqx.nn.Linear` layers.
    """

    dataset: Dataset
    hidden: tuple[int, ...] = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)

    def __init__(
        self, dataset: Dataset, hidden: Sequence[int] = (32, 32), batch_size: int = 64
    ):
        """**Arguments:**

        - `dataset`: the data.
        - `hidden`: widths of the hidden layers.
        - `batch_size`: examples in a minibatch, drawn with replacement.
        """
        if batch_size < 1 or min(hidden, default=1) < 1:
            raise ValueError(
                "Widths and batch size must be at least 1; got "
                f"{tuple(hidden)} and {batch_size}."
            )
        self.dataset = dataset
        self.hidden = tuple(hidden)
        self.batch_size = batch_size

    @property
    def loss_bounds(self) -> tuple[float, float]:
        return 0.0, 1.5 * math.log(self.dataset.classes)

    def init(self, *, key: PRNGKeyArray) -> list[eqx.nn.Linear]:
        sizes = [self.dataset.in_size, *self.hidden, self.dataset.classes]
        shapes = list(itertools.pairwise(sizes))
        keys = jr.split(key, len(shapes))
        return [eqx.nn.Linear(*s, key=k) for s, k in zip(shapes, keys, strict=True)]

    def logits(self, params: PyTree[Array], inputs: Array) -> Float[Array, "batch classes"]:
        """Class scores of inputs in their storage type."""
        *layers, last = params
        x = self.dataset.prepare(inputs).reshape(len(inputs), -1)
        for layer in layers:
            x = jnn.relu(jax.vmap(layer)(x))
        return jax.vmap(last)(x)

    def loss(
        self, params: PyTree[Array], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        inputs, labels = self.dataset[split].batch(self.batch_size, key=key)
        logits = self.logits(params, inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses)


def digits_mlp(hidden: Sequence[int] = (32, 32), batch_size: int = 64) -> MLPClassification:
    """The MLP 64-32-32-10 on scikit-learn's digits: real data, with no download."""
    return MLPClassification(digits(), hidden, batch_size)
