"""What a meta-step measured, and who is told."""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, Int, PyTree


class Metrics(eqx.Module):
    """What a meta-step measured, or each of many; see [`equistar.MetaGradient`][].

    [`equistar.meta_train_step`][] returns JAX arrays of one meta-step: numbers, and a
    vector of `unroll_losses`. Loggers are given the same as NumPy arrays. The history of an
    [`equistar.MetaTrainResult`][] holds NumPy arrays with one leading axis, of the
    meta-steps.

    **Attributes:**

    - `meta_loss`: of a mixture, the weighted mean over the unrolls whose gradients are
        known.
    - `gradient_norm`: Euclidean norm of the gradient that the outer optimizer is given; NaN
        in a step that is skipped.
    - `diverged`, `dead`, `dropped`: counts over all unrolls.
    - `skipped`: the number of meta-steps skipped so far.
    - `unroll_losses`: the meta-loss of each unroll of a mixture.
    """

    meta_loss: Float[Array | np.ndarray, "*steps"]
    gradient_norm: Float[Array | np.ndarray, "*steps"]
    diverged: Int[Array | np.ndarray, "*steps"]
    dead: Int[Array | np.ndarray, "*steps"]
    dropped: Int[Array | np.ndarray, "*steps"]
    skipped: Int[Array | np.ndarray, "*steps"]
    unroll_losses: Float[Array | np.ndarray, "*steps unrolls"]


def stack_metrics(history: Sequence[Metrics]) -> Metrics:
    """The metrics of many meta-steps as NumPy arrays with one leading axis."""
    return jtu.tree_map(lambda *xs: np.stack(xs), *history)


def unstack_metrics(history: Metrics) -> list[Metrics]:
    """The metrics of each meta-step."""
    columns, structure = jtu.tree_flatten(history)
    # With the dots a number is an array too, as from a device, and no NumPy scalar.
    rows = zip(*([x[i, ...] for i in range(len(x))] for x in columns), strict=True)
    # Not by the constructor, which takes three times as long: there are many meta-steps.
    return [jtu.tree_unflatten(structure, row) for row in rows]


class AbstractLogger(eqx.Module):
    """Is called after every meta-step; printing and writing files belong in loggers."""

    @abc.abstractmethod
    def __call__(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        """Called after meta-step `step` = 1, 2, ...

        **Arguments:**

        - `step`: number of the meta-step.
        - `metrics`: what it measured, on the host.
        - `theta`: the meta-parameters after it.
        """


class NoLogger(AbstractLogger):
    """Does nothing."""

    def __call__(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        pass
