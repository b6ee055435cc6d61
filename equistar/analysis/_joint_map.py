"""A training step as a map of parameters and optimizer state, and its derivative."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, PyTree

from .._inner_training import train_init, TrainState
from .._kinds import check_kind
from .._numerics import all_finite
from .._optimizers import AbstractOptimizer
from ..tasks import AbstractTask


def check_state(
    task: AbstractTask, optimizer: AbstractOptimizer, state: TrainState
) -> None:
    """Raises a `ValueError` unless the state is one of this task and optimizer."""
    check_kind(state, TrainState, "`state`", "what `train_init` or `train_step` returns")
    fresh = eqx.filter_eval_shape(train_init, task, optimizer, key=jr.key(0))
    for name in ("params", "opt_state"):
        ours, theirs = (_shapes(getattr(s, name)) for s in (fresh, state))
        if ours != theirs:
            raise ValueError(
                f"`state.{name}` is not of this task and optimizer: begin with "
                "`train_init(task, optimizer, key=key)` of the same two."
            )


def _shapes(tree: PyTree) -> Any:
    is_array = lambda x: eqx.is_array(x) or isinstance(x, jax.ShapeDtypeStruct)
    leaves, structure = jtu.tree_flatten(eqx.filter(tree, is_array))
    return structure, [x.shape for x in leaves]


@eqx.filter_jit
def is_finite(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    rest: PyTree,
    keys: Array,
    flat: Float[Array, " n"],
    unravel: Callable[[Array], PyTree],
) -> Bool[Array, ""]:
    """Whether the step itself is: a derivative of NaN would count as none."""
    return all_finite(_step(task, optimizer, rest, keys, flat, unravel))


def jacobian_vector_product(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    rest: PyTree,
    keys: Array,
    flat: Float[Array, " n"],
    direction: Float[Array, " n"],
    unravel: Callable[[Array], PyTree],
) -> Float[Array, " n"]:
    step = lambda x: _step(task, optimizer, rest, keys, x, unravel)
    update, opt_state = jax.jvp(step, (flat,), (direction,))[1]
    # Adam's update has no derivative where a second moment is exactly zero, as it stays
    # for the weights of an input that is always zero: it is constant there.
    still = lambda x: jnp.where(jnp.isfinite(x), x, 0).astype(flat.dtype)
    moved = direction[: update.size] + still(update)
    return jnp.concatenate([moved, still(opt_state)])


def _step(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    rest: PyTree,
    keys: Array,
    flat: Float[Array, " n"],
    unravel: Callable[[Array], PyTree],
) -> tuple[Array, Array]:
    state = eqx.combine(unravel(flat), rest)
    mean_loss = lambda p: jnp.mean(jax.vmap(lambda k: task.loss(p, key=k))(keys))
    loss, grads = jax.value_and_grad(mean_loss)(state.params)
    extra = {"value": loss, "value_fn": mean_loss, "grad": grads}
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, **extra)
    floats = eqx.filter(opt_state, eqx.is_inexact_array)
    return ravel_pytree(updates)[0], ravel_pytree(floats)[0].astype(flat.dtype)


product = eqx.filter_jit(jacobian_vector_product)


@eqx.filter_jit
def products(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    rest: PyTree,
    keys: Array,
    flat: Float[Array, " n"],
    directions: Float[Array, "m n"],
    unravel: Callable[[Array], PyTree],
) -> Float[Array, "m n"]:
    one = lambda v: jacobian_vector_product(task, optimizer, rest, keys, flat, v, unravel)
    return jax.vmap(one)(directions)
