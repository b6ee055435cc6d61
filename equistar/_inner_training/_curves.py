"""Training curves of an optimizer on a task, over many seeds at once."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .._optimizers import AbstractOptimizer, OptaxOptimizer
from ..tasks import AbstractTask
from ._training import train


@eqx.filter_jit
def training_curves(
    task: AbstractTask, optimizer: AbstractOptimizer, *, steps: int, keys: Array
) -> Float[Array, "seeds steps"]:
    """The training loss at each step, for a fresh network from each key."""
    return jax.vmap(lambda k: train(task, optimizer, steps=steps, key=k).losses)(keys)


@eqx.filter_jit
def adam_curves(
    task: AbstractTask, learning_rates: Sequence[float], *, steps: int, keys: Array
) -> Float[Array, "rates seeds steps"]:
    """The training curves of Adam at several learning rates, in one program."""
    make = lambda rate: OptaxOptimizer(optax.adam, learning_rate=rate)
    run = lambda rate: training_curves(task, make(rate), steps=steps, keys=keys)
    return jax.vmap(run)(jnp.asarray(learning_rates, jnp.zeros(()).dtype))
