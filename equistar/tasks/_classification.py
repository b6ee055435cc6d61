"""Classification of images or table rows, with any architecture."""

import math

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._kinds import as_count, check_kind
from ._architectures import AbstractArchitecture, MLP
from ._base import AbstractTask, Split
from ._data import Dataset
from ._model import apply_model, init_model


class Classification(AbstractTask):
    """Cross-entropy of a model on a labelled data set.

    $$l = -\\frac1B \\sum_b \\log \\operatorname{softmax}(z_b)_{y_b}$$

    with the model's scores $z_b$ and the labels $y_b$ of $B$ examples. Meta-training clips
    recorded losses at $1.5 \\ln C$ for $C$ classes.
    """

    dataset: Dataset
    architecture: AbstractArchitecture
    batch_size: int = eqx.field(static=True)

    def __init__(
        self,
        dataset: Dataset,
        architecture: AbstractArchitecture = MLP(),
        batch_size: int = 64,
    ):
        """**Arguments:**

        - `dataset`: the data.
        - `architecture`: of the model, say [`equistar.tasks.MLP`][].
        - `batch_size`: $B$, examples in a minibatch, drawn with replacement.

        **Raises:**

        `ValueError` if an argument is not of its kind, or `batch_size` is below 1.
        """
        wanted = "a Dataset, say `dataset_from_arrays(inputs, labels)`"
        check_kind(dataset, Dataset, "`dataset`", wanted)
        check_kind(architecture, AbstractArchitecture, "`architecture`")
        batch_size = as_count(batch_size, "batch_size")
        self.dataset = dataset
        self.architecture = architecture
        self.batch_size = batch_size

    @property
    def loss_bounds(self) -> tuple[float, float]:
        return 0.0, 1.5 * math.log(self.dataset.classes)

    def init(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        shape, classes = self.dataset.in_shape, self.dataset.classes
        return init_model(self.architecture, shape, classes, key=key)

    def logits(self, params: PyTree[Array], inputs: Array) -> Float[Array, "batch classes"]:
        """Class scores of inputs in their storage type."""
        x = self.dataset.prepare(inputs)
        shape, classes = self.dataset.in_shape, self.dataset.classes
        return apply_model(self.architecture, shape, (classes,), params, x)

    def loss(
        self, params: PyTree[Array], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        inputs, labels = self.dataset[split].batch(self.batch_size, key=key)
        logits = self.logits(params, inputs)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses)
