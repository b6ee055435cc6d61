"""A training step as a map of parameters and optimizer state, and its derivative."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from .._optimizers import AbstractOptimizer
from ..tasks import AbstractTask


def jacobian_vector_product(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    rest: PyTree,
    keys: Array,
    flat: Float[Array, " n"],
    direction: Float[Array, " n"],
    unravel: Callable[[Array], PyTree],
) -> Float[Array, " n"]:
    def step(flat: Float[Array, " n"]) -> tuple[Array, Array]:
        state = eqx.combine(unravel(flat), rest)
        losses = lambda p: jax.vmap(lambda k: task.loss(p, key=k))(keys)
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(losses(p)))(state.params)
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, value=loss
        )
        floats = eqx.filter(opt_state, eqx.is_inexact_array)
        return ravel_pytree(updates)[0], ravel_pytree(floats)[0].astype(flat.dtype)

    update, opt_state = jax.jvp(step, (flat,), (direction,))[1]
    # Adam's update has no derivative where a second moment is exactly zero, as it stays
    # for the weights of an input that is always zero: it is constant there.
    still = lambda x: jnp.where(jnp.isfinite(x), x, 0).astype(flat.dtype)
    moved = direction[: update.size] + still(update)
    return jnp.concatenate([moved, still(opt_state)])


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
