"""Regression, with any architecture."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._kinds import as_count, check_kind
from ._architectures import AbstractArchitecture, MLP
from ._base import AbstractTask, Split
from ._data import RegressionDataset
from ._model import apply_model, init_model
from ._split_checks import clipping_bound


class Regression(AbstractTask):
    """Mean squared error of a model.

    $$l = \\frac{1}{B D} \\sum_{b, d} (f(x_b) - y_b)_d^2$$

    for the $D$ numbers $y_b$ of each of $B$ examples. Meta-training clips recorded losses
    at 1.5 times the targets' mean square. Targets should have mean zero and variance one.
    """

    dataset: RegressionDataset
    architecture: AbstractArchitecture
    batch_size: int = eqx.field(static=True)
    loss_bounds: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self,
        dataset: RegressionDataset,
        architecture: AbstractArchitecture = MLP(),
        batch_size: int = 64,
    ):
        """**Arguments:**

        - `dataset`: the data.
        - `architecture`: of the model, say [`equistar.tasks.MLP`][].
        - `batch_size`: $B$, examples in a minibatch, drawn with replacement.

        **Raises:**

        `ValueError` if an argument is not of its kind, `batch_size` is below 1, or the
        training targets are all zero, or have squares that are not finite.
        """
        wanted = "a RegressionDataset, say `regression_from_arrays(inputs, targets)`"
        check_kind(dataset, RegressionDataset, "`dataset`", wanted)
        check_kind(architecture, AbstractArchitecture, "`architecture`")
        batch_size = as_count(batch_size, "batch_size")
        self.dataset = dataset
        self.architecture = architecture
        self.batch_size = batch_size
        squares = dataset[Split.TRAIN].targets ** 2
        self.loss_bounds = 0.0, clipping_bound(squares, "targets")

    def init(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        shape, size = self.dataset.in_shape, self.dataset.out_size
        return init_model(self.architecture, shape, size, key=key)

    def predict(self, params: PyTree[Array], inputs: Array) -> Float[Array, "batch out"]:
        """The model's outputs for inputs in their storage type."""
        x = self.dataset.prepare(inputs)
        shape, size = self.dataset.in_shape, self.dataset.out_size
        return apply_model(self.architecture, shape, (size,), params, x)

    def loss(
        self, params: PyTree[Array], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        inputs, targets = self.dataset[split].batch(self.batch_size, key=key)
        predicted = self.predict(params, inputs)
        return jnp.mean((predicted - targets.astype(predicted.dtype)) ** 2)
