"""Inner training: an optimizer on a task, as a step and as an unroll."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ._optimizers import AbstractOptimizer
from ._unroll import AbstractUnroll
from .tasks import AbstractTask


class TrainState(eqx.Module):
    """A network in training: its parameters and the optimizer's state."""

    params: PyTree[Array]
    opt_state: PyTree[Array]


def train_init(
    task: AbstractTask, optimizer: AbstractOptimizer, *, key: PRNGKeyArray
) -> TrainState:
    """Fresh parameters and optimizer state."""
    params = task.init(key=key)
    return TrainState(params, optimizer.init(params))


def train_step(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    state: TrainState,
    *,
    key: PRNGKeyArray,
) -> tuple[TrainState, Float[Array, ""]]:
    """One minibatch, its gradient, one update.

    **Returns:**

    `(state, loss)`, the loss being that of the parameters before the update.
    """
    loss_fn = lambda params: task.loss(params, key=key)
    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params, value=loss)
    params = jtu.tree_map(jnp.add, state.params, updates)
    return TrainState(params, opt_state), loss


class InnerTraining(AbstractUnroll):
    """Training of a task, as an unroll whose `theta` is the optimizer.

    Recorded losses are clipped to the task's bounds, and a loss that is not finite is
    recorded as the upper one.
    """

    task: AbstractTask

    def init(self, theta: AbstractOptimizer, *, key: PRNGKeyArray) -> TrainState:
        return train_init(self.task, theta, key=key)

    def step(
        self, theta: AbstractOptimizer, carry: TrainState, *, key: PRNGKeyArray
    ) -> tuple[TrainState, Float[Array, ""]]:
        carry, loss = train_step(self.task, theta, carry, key=key)
        lower, upper = self.task.loss_bounds
        return carry, jnp.clip(jnp.where(jnp.isfinite(loss), loss, upper), lower, upper)


class TrainResult(eqx.Module):
    """What [`equistar.train`][] returns.

    **Attributes:**

    - `params`: the trained parameters.
    - `losses`: the training loss at each step, before its update.
    - `opt_state`: the optimizer's state, to go on from.
    """

    params: PyTree[Array]
    losses: Float[Array, " steps"]
    opt_state: PyTree[Array]


def train(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    *,
    steps: int,
    key: PRNGKeyArray,
) -> TrainResult:
    """Trains a fresh network on a task.

    Many seeds at once: `eqx.filter_vmap(lambda k: eqs.train(task, opt, steps=500,
    key=k))(keys)`.

    **Arguments:**

    - `task`: the stochastic loss.
    - `optimizer`: any optimizer of this library.
    - `steps`: number of updates.
    - `key`: a PRNG key, for the initial parameters and the minibatches.
    """
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1; got {steps}.")
    init_key, data_key = jr.split(key)
    return _train(task, optimizer, steps, init_key, jr.split(data_key, steps))


@eqx.filter_jit
def _train(
    task: AbstractTask,
    optimizer: AbstractOptimizer,
    steps: int,
    init_key: PRNGKeyArray,
    keys: Array,
) -> TrainResult:
    def body(state: TrainState, key: PRNGKeyArray) -> tuple[TrainState, Array]:
        return train_step(task, optimizer, state, key=key)

    state = train_init(task, optimizer, key=init_key)
    state, losses = jax.lax.scan(body, state, keys)
    return TrainResult(state.params, losses, state.opt_state)
