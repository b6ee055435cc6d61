"""Inner training: an optimizer on a task, as a step and as an unroll."""

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._kinds import as_steps, check_key, check_kind, check_parts, described, is_number
from .._optimizers import AbstractOptimizer, check_params
from .._unrolls import AbstractUnroll
from ..tasks import AbstractTask
from ._meta_losses import AbstractMetaLoss, TrainingBatch


class TrainState(eqx.Module):
    """A network in training: its parameters, `params`, and the optimizer's `opt_state`."""

    params: PyTree[Array]
    opt_state: PyTree[Array]


def train_init(
    task: AbstractTask,
    optimizer: AbstractOptimizer | optax.GradientTransformation,
    *,
    key: PRNGKeyArray,
) -> TrainState:
    """Fresh parameters and optimizer state.

    **Arguments:** as for [`equistar.train`][].

    **Returns:** an [`equistar.TrainState`][].

    **Raises:** `ValueError` if an argument is not of its kind, or the task's parameters are
    not floating-point arrays.
    """
    _check_task(task)
    check_key(key)
    _check_optimizer(optimizer)
    params = task.init(key=key)
    check_params(params)
    with _promotion(optimizer):
        return TrainState(params, optimizer.init(params))


# Optax's optimizers promote weak to strong types, which strict promotion refuses.
def _promotion(
    optimizer: AbstractOptimizer | optax.GradientTransformation,
) -> AbstractContextManager[Any]:
    ours = not isinstance(optimizer, optax.GradientTransformation)
    return contextlib.nullcontext() if ours else jax.numpy_dtype_promotion("standard")


def train_step(
    task: AbstractTask,
    optimizer: AbstractOptimizer | optax.GradientTransformation,
    state: TrainState,
    *,
    key: PRNGKeyArray,
) -> tuple[TrainState, Float[Array, ""]]:
    """One minibatch, its gradient, one update.

    **Arguments:** as for [`equistar.train`][], and the `state` before.

    **Returns:** `(state, loss)`, the loss being that of the parameters before the update.

    **Raises:** `ValueError` if the loss is not one floating-point number.
    """
    if isinstance(optimizer, optax.GradientTransformation):
        optimizer = optax.with_extra_args_support(optimizer)
    loss_fn = lambda params: _checked_loss(task, task.loss(params, key=key))
    loss, grads = jax.value_and_grad(loss_fn)(state.params)
    with _promotion(optimizer):
        updates, opt_state = optimizer.update(
            grads, state.opt_state, state.params, value=loss, value_fn=loss_fn, grad=grads
        )
        params = jtu.tree_map(lambda p, u: p + u.astype(p.dtype), state.params, updates)
    return TrainState(params, opt_state), loss


class InnerTraining(AbstractUnroll):
    """Training of a task, as an unroll whose `theta` is the optimizer.

    Recorded losses are clipped to the task's bounds, and a loss that is not finite is
    recorded as the upper one. Parameters are not checked, which would cost time at every
    step: one that is not finite makes its whole tensor NaN at a learned optimizer's next
    update, and hence the loss, unless the loss does not depend on that tensor.

    **Arguments:**

    - `task`: what is trained.
    - `meta_loss`: what is recorded, `TrainingBatch()`, `AfterUpdate()` or `HeldOut(split)`.

    **Raises:** `ValueError` if an argument or the task's `loss_bounds` is not of its kind.
    """

    task: AbstractTask
    meta_loss: AbstractMetaLoss = TrainingBatch()

    def __check_init__(self):
        _check_task(self.task)
        check_parts(self)
        _check_bounds(self.task)

    def init(self, theta: AbstractOptimizer, *, key: PRNGKeyArray) -> TrainState:
        return train_init(self.task, theta, key=key)

    def step(
        self, theta: AbstractOptimizer, carry: TrainState, *, key: PRNGKeyArray
    ) -> tuple[TrainState, Float[Array, ""]]:
        after, loss = train_step(self.task, theta, carry, key=key)
        loss = self.meta_loss(self.task, carry.params, after.params, loss, key=key)
        _check_meta_loss(self.meta_loss, loss)
        lower, upper = self.task.loss_bounds
        return after, jnp.clip(jnp.where(jnp.isfinite(loss), loss, upper), lower, upper)


class TrainResult(eqx.Module):
    """What [`equistar.train`][] returns.

    **Attributes:**

    - `params`: the trained parameters.
    - `losses`: the training loss at each step, before its update.
    - `opt_state`: the optimizer's state after the last step.
    """

    params: PyTree[Array]
    losses: Float[Array, " steps"]
    opt_state: PyTree[Array]


def train(
    task: AbstractTask,
    optimizer: AbstractOptimizer | optax.GradientTransformation,
    *,
    steps: int,
    key: PRNGKeyArray,
) -> TrainResult:
    """Trains a fresh network on a task.

    Many seeds at once: `eqx.filter_vmap(lambda k: eqs.train(task, opt, steps=500,
    key=k))(keys)`.

    **Arguments:**

    - `task`: the stochastic loss.
    - `optimizer`: any optimizer of this library, or of optax.
    - `steps`: number of updates.
    - `key`: a PRNG key, for the initial parameters and the minibatches.

    **Returns:** an [`equistar.TrainResult`][].

    **Raises:** `ValueError` if an argument is not of its kind, or `steps` below 1.
    """
    _check_task(task)
    _check_optimizer(optimizer)
    steps = as_steps(steps, "steps")
    check_key(key)
    init_key, data_key = jr.split(key)
    return _train(task, optimizer, init_key, jr.split(data_key, steps))


@eqx.filter_jit
def _train(
    task: AbstractTask,
    optimizer: AbstractOptimizer | optax.GradientTransformation,
    init_key: PRNGKeyArray,
    keys: Array,
) -> TrainResult:
    def body(state: TrainState, key: PRNGKeyArray) -> tuple[TrainState, Array]:
        return train_step(task, optimizer, state, key=key)

    state = train_init(task, optimizer, key=init_key)
    state, losses = jax.lax.scan(body, state, keys)
    return TrainResult(state.params, losses, state.opt_state)


def _check_optimizer(optimizer: Any) -> None:
    kinds = AbstractOptimizer | optax.GradientTransformation
    wanted = "an optimizer, say `load_pretrained('star-best')` or `optax.adam(1e-3)`"
    check_kind(optimizer, kinds, "`optimizer`", wanted)


def _checked_loss(task: AbstractTask, loss: Any) -> Float[Array, ""]:
    if not is_number(loss):
        raise ValueError(
            f"The loss of {type(task).__name__} must be one floating-point number, say the "
            f"mean over a minibatch, and nothing besides; got {described(loss)}."
        )
    return loss


def _check_meta_loss(meta_loss: AbstractMetaLoss, loss: Any) -> None:
    if not is_number(loss):
        raise ValueError(
            f"The meta-loss {type(meta_loss).__name__} must return one floating-point "
            f"number; got {described(loss)}."
        )


def _check_bounds(task: AbstractTask) -> None:
    bounds = task.loss_bounds
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise ValueError(
            f"`loss_bounds` of {type(task).__name__} must be (lower, upper), say (0.0, "
            f"5.0); got {bounds!r:.80}."
        )
    lower, upper = bounds
    known = not any(isinstance(x, jax.core.Tracer) for x in (lower, upper))
    if known and not lower < upper:
        raise ValueError(
            f"`loss_bounds` of {type(task).__name__} must be (lower, upper) with lower < "
            f"upper, which losses are clipped to; got ({lower}, {upper})."
        )


def _check_task(task: AbstractTask) -> None:
    if not isinstance(task, AbstractTask):
        raise ValueError(
            f"`task` must be a task, say `equistar.tasks.digits_mlp()`; got {task!r:.80}."
        )
