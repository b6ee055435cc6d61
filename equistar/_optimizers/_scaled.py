"""A learning rate and decoupled weight decay on top of any optimizer."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Int, PyTree

from .._kinds import check_kind
from .._numerics import accumulator_dtype
from ._base import AbstractOptimizer
from ._trees import check_state


class ScaledState(eqx.Module):
    """State of [`equistar.Scaled`][].

    **Attributes:**

    - `inner`: the wrapped optimizer's state.
    - `count`: the number of updates made, which the schedules read.
    """

    inner: PyTree
    count: Int[Array, ""]


class Scaled(AbstractOptimizer):
    """Scales another optimizer's updates $u_t$ and adds decoupled weight decay:

    $$p \\leftarrow p + \\eta_t (u_t - \\lambda_t p)$$
    """

    optimizer: AbstractOptimizer
    learning_rate: ArrayLike | optax.Schedule
    weight_decay: ArrayLike | optax.Schedule

    def __init__(
        self,
        optimizer: AbstractOptimizer,
        learning_rate: ArrayLike | optax.Schedule = 1.0,
        weight_decay: ArrayLike | optax.Schedule = 0.0,
    ):
        """**Arguments:**

        - `optimizer`: the optimizer to wrap.
        - `learning_rate`: $\\eta$, a number or an optax schedule. A meta-trained optimizer
            sets its own step sizes: 1 is its own choice.
        - `weight_decay`: $\\lambda$, a number or an optax schedule; it is multiplied by
            the learning rate, as in `optax.adamw`.

        A JAX array is a leaf of the optimizer: it can be mapped over, and is meta-learned
        as it is, without a constraint. Numbers of Python and NumPy are fixed.

        **Raises:**

        `ValueError` if one of them is not a number, negative or not finite. The value of a
        JAX array is not read.
        """
        check_kind(optimizer, AbstractOptimizer, "`optimizer`")
        self.optimizer = optimizer
        self.learning_rate = _checked("learning_rate", learning_rate)
        self.weight_decay = _checked("weight_decay", weight_decay)

    def init(self, params: PyTree) -> ScaledState:
        return ScaledState(self.optimizer.init(params), jnp.zeros((), jnp.int32))

    def update(
        self,
        grads: PyTree,
        state: ScaledState,
        params: PyTree,
        **extra: Any,
    ) -> tuple[PyTree, ScaledState]:
        check_state(state, ScaledState)
        updates, inner = self.optimizer.update(grads, state.inner, params, **extra)
        rate = _value(self.learning_rate, state.count)
        decay = _value(self.weight_decay, state.count)

        def scale(u: Array, p: Array) -> Array:
            dtype = accumulator_dtype(p.dtype)
            eta, decayed = jnp.asarray(rate, dtype), jnp.asarray(decay, dtype)
            return (eta * (u.astype(dtype) - decayed * p.astype(dtype))).astype(p.dtype)

        count = jnp.asarray(optax.safe_increment(state.count))
        return jtu.tree_map(scale, updates, params), ScaledState(inner, count)


# Of JAX's arrays and of schedules the values are known in the update only.
def _checked(name: str, value: ArrayLike | optax.Schedule) -> ArrayLike | optax.Schedule:
    """A rate, or a `ValueError`; a number of NumPy's as Python's, which a file can hold."""
    if callable(value):
        return value
    real = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
    if not real or isinstance(value, bool) or jnp.ndim(value) or jnp.iscomplexobj(value):
        raise ValueError(f"`{name}` must be a number or a schedule; got {value!r:.80}.")
    if not isinstance(value, jax.Array) and not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be finite and at least 0; got {value}.")
    return float(value) if isinstance(value, np.number | np.ndarray) else value


def _value(rate: ArrayLike | optax.Schedule, count: Int[Array, ""]) -> ArrayLike:
    if not callable(rate):
        return rate
    # Optax's schedules promote weak to strong types, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        value = rate(count)
    known = isinstance(value, int | float | np.number | np.ndarray | jax.Array)
    if not known or jnp.shape(value):
        raise ValueError(f"A schedule must return one number; got {value!r:.80}.")
    return value
