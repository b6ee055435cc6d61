"""What a meta-step measured, and who is told."""

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, Int, PyTree


class Metrics(eqx.Module):
    """What one meta-step measured; see [`equistar.MetaGradient`][].

    **Attributes:**

    - `meta_loss`: of a mixture, the weighted mean over the unrolls whose gradients are
        known.
    - `gradient_norm`: Euclidean norm of the gradient that the outer optimizer is given; NaN
        in a step that is skipped.
    - `diverged`, `dead`, `dropped`: counts over all unrolls.
    - `skipped`: the number of meta-steps skipped so far.
    - `unroll_losses`: the meta-loss of each unroll of a mixture.
    """

    meta_loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    diverged: Int[Array, ""]
    dead: Int[Array, ""]
    dropped: Int[Array, ""]
    skipped: Int[Array, ""]
    unroll_losses: Float[Array, " unrolls"]


def stack_metrics(history: Sequence[Metrics]) -> Metrics:
    """The metrics of many meta-steps as arrays with one leading axis."""
    return jtu.tree_map(lambda *xs: np.stack(xs), *history)


def unstack_metrics(history: Metrics) -> list[Metrics]:
    """The metrics of each meta-step."""
    rows = zip(*vars(history).values(), strict=True)
    return [metrics_from(dict(zip(vars(history), row, strict=True))) for row in rows]


def metrics_from(columns: Mapping[str, Any]) -> Metrics:
    """Metrics of numbers on the host, or of arrays of them, by name."""
    number, count = jnp.zeros(()), jnp.zeros((), jnp.int32)
    blank = Metrics(number, number, count, count, count, count, jnp.zeros(1))
    leaves = [columns[name] for name in vars(blank)]
    return jtu.tree_unflatten(jtu.tree_structure(blank), leaves)


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
