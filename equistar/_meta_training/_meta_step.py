"""One meta-step: an estimate of the meta-gradient, and a step of the outer optimizer."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from .._devices import put_on_all_devices
from .._estimators import AbstractEstimator, MetaGradient
from .._kinds import check_key, is_real
from .._numerics import accumulator_dtype, all_finite, tree_norm
from .._unrolls import AbstractUnroll, Completed
from ._feed import AbstractFeed, Steady
from ._logger import Metrics
from ._mixture import as_mixture, check_combination, Mixture, unroll_keys
from ._trainable import check_trainable


class MetaTrainState(eqx.Module):
    """Everything that the next meta-step depends on.

    **Attributes:**

    - `theta`: the meta-parameters.
    - `outer_state`: the outer optimizer's state.
    - `particles`: the estimator's state, for each unroll.
    - `combination_state`: the state of the [`equistar.AbstractCombination`][].
    - `key`: the run's PRNG key; step n draws from `fold_in(key, n)`.
    - `step`: meta-steps made.
    - `skipped`: meta-steps skipped because their gradient was not finite.
    """

    theta: PyTree
    outer_state: PyTree
    particles: tuple[PyTree[Array], ...]
    combination_state: PyTree[Array]
    key: PRNGKeyArray
    step: Int[Array, ""]
    skipped: Int[Array, ""]


def meta_train_init(
    unroll: AbstractUnroll | AbstractFeed | Mixture,
    estimator: AbstractEstimator,
    theta: PyTree,
    outer: optax.GradientTransformation,
    *,
    key: PRNGKeyArray,
    trainable: PyTree = eqx.is_inexact_array,
) -> MetaTrainState:
    """The state before the first meta-step.

    **Arguments:** as for [`equistar.meta_train`][].

    **Returns:**

    An [`equistar.MetaTrainState`][].

    **Raises:**

    `ValueError` if an argument is not of its kind, or nothing of `theta` is trainable.
    """
    check_key(key)
    mixture = as_mixture(unroll)
    theta = jtu.tree_map(_as_jax, theta)
    unrolls, theta, key = put_on_all_devices((mixture.at(0), theta, key))
    init_key, run_key = jr.split(key)
    # Not one array twice, which nobody could donate.
    steps, skipped = (put_on_all_devices(jnp.zeros((), jnp.int32)) for _ in range(2))
    check_trainable(trainable, theta)
    with jax.numpy_dtype_promotion("standard"):
        outer_state = outer.init(eqx.filter(theta, trainable))
    particles = tuple(
        _init_particles(unroll, estimator, theta, trainable, key)
        for unroll, key in zip(unrolls, unroll_keys(init_key, len(unrolls)), strict=True)
    )
    check_combination(mixture, eqx.filter(theta, trainable))
    combination_state = put_on_all_devices(mixture.combination.init(len(unrolls)))
    return MetaTrainState(
        theta, outer_state, particles, combination_state, run_key, steps, skipped
    )


# An array of NumPy would come back from a step as one of JAX, and a weakly typed one as a
# strong one: the next step would compile again.
def _as_jax(x: Any) -> Any:
    if isinstance(x, np.ndarray | np.generic) and is_real(x):
        x = jnp.asarray(x)
    return x.astype(x.dtype) if eqx.is_inexact_array(x) else x


def meta_train_step(
    unroll: AbstractUnroll | AbstractFeed | Mixture,
    estimator: AbstractEstimator,
    outer: optax.GradientTransformation,
    state: MetaTrainState,
    *,
    trainable: PyTree = eqx.is_inexact_array,
) -> tuple[MetaTrainState, Metrics]:
    """One estimate of the meta-gradient and one step of the outer optimizer.

    A meta-step whose gradient is not finite is skipped as a whole, and counted. In a
    mixture, only the unrolls whose gradients are not finite are left out.

    **Arguments:**

    - `unroll`: as for [`equistar.meta_train`][]. Inside of `jax.jit`, instead of an
        [`equistar.AbstractFeed`][], pass the unroll that its `at(step)` returns.
    - `state`: from [`equistar.meta_train_init`][], or the step before.

    The others are as for `meta_train`.

    **Returns:**

    `(state, metrics)`: an [`equistar.MetaTrainState`][] and [`equistar.Metrics`][].
    """
    mixture = as_mixture(unroll)
    unrolls = _at_present(mixture, state.step)
    return step_through(mixture, unrolls, estimator, outer, state, trainable)


def _at_present(mixture: Mixture, step: Int[Array, ""]) -> tuple[AbstractUnroll, ...]:
    """The unrolls of this meta-step, which only feeds make others of."""
    if all(isinstance(feed, Steady) for feed in mixture.feeds):
        return mixture.at(0)
    try:
        done = int(step)
    except jax.errors.ConcretizationTypeError as e:
        raise ValueError(
            "Inside of `jax.jit`, where the meta-step is not known, nothing can be fed: "
            "pass the unroll that the feed's `at(step)` returns."
        ) from e
    return mixture.at(done)


def step_through(
    mixture: Mixture,
    unrolls: Sequence[AbstractUnroll],
    estimator: AbstractEstimator,
    outer: optax.GradientTransformation,
    state: MetaTrainState,
    trainable: PyTree,
) -> tuple[MetaTrainState, Metrics]:
    """A meta-step through these unrolls of a mixture."""
    keys = _step_keys(state.key, state.step, len(unrolls))
    # A program for each unroll, so that equal ones share it.
    made = [
        _estimate(unroll, estimator, state.theta, trainable, particles, key)
        for unroll, particles, key in zip(unrolls, state.particles, keys, strict=True)
    ]
    estimates, particles = zip(*made, strict=True)
    weights = jnp.asarray(mixture.weights)
    return _apply(
        mixture.combination, weights, outer, state, trainable, estimates, particles
    )


@eqx.filter_jit
def _init_particles(
    unroll: AbstractUnroll,
    estimator: AbstractEstimator,
    theta: PyTree,
    trainable: PyTree,
    key: PRNGKeyArray,
) -> PyTree[Array]:
    arrays, held = eqx.partition(theta, trainable)
    return estimator.init(Completed(unroll, held), arrays, key=key)


@eqx.filter_jit
def _step_keys(
    key: PRNGKeyArray, step: Int[Array, ""], unrolls: int
) -> tuple[PRNGKeyArray, ...]:
    return unroll_keys(jr.fold_in(key, step), unrolls)


@eqx.filter_jit
def _estimate(
    unroll: AbstractUnroll,
    estimator: AbstractEstimator,
    theta: PyTree,
    trainable: PyTree,
    particles: PyTree[Array],
    key: PRNGKeyArray,
) -> tuple[MetaGradient, PyTree[Array]]:
    arrays, held = eqx.partition(theta, trainable)
    return estimator.estimate(Completed(unroll, held), arrays, particles, key=key)


@eqx.filter_jit
def _apply(
    combination: PyTree,
    weights: Array,
    outer: optax.GradientTransformation,
    state: MetaTrainState,
    trainable: PyTree,
    estimates: tuple[MetaGradient, ...],
    particles: tuple[PyTree[Array], ...],
) -> tuple[MetaTrainState, Metrics]:
    known = jnp.stack([all_finite(e.gradient) for e in estimates])
    weights = jnp.where(known | ~jnp.any(known), weights, 0)
    weights = weights / jnp.sum(weights)
    gradients = [_zero_unless(k, e.gradient) for k, e in zip(known, estimates, strict=True)]
    gradient, combined = combination(gradients, weights, state.combination_state)
    finite = jnp.any(known) & all_finite(gradient)
    arrays, held = eqx.partition(state.theta, trainable)
    # Optax's optimizers promote weak to strong types, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, outer_state = _outer_update(
            outer, gradient, state.outer_state, arrays, _meta_loss(estimates, weights)
        )
        moved = optax.apply_updates(arrays, updates)
    keep = lambda new, old: jnp.where(finite, new, old)
    skipped = state.skipped + jnp.where(finite, 0, 1).astype(state.skipped.dtype)
    state = MetaTrainState(
        eqx.combine(jtu.tree_map(keep, moved, arrays), held),
        jtu.tree_map(keep, outer_state, state.outer_state),
        particles,
        jtu.tree_map(keep, combined, state.combination_state),
        state.key,
        state.step + 1,
        skipped,
    )
    return state, _metrics(estimates, weights, gradient, finite, skipped)


def _outer_update(
    outer: optax.GradientTransformation,
    gradient: PyTree,
    outer_state: PyTree,
    arrays: PyTree,
    meta_loss: Float[Array, ""],
) -> tuple[PyTree, PyTree]:
    extra = {"value": meta_loss, "grad": gradient}
    update = optax.with_extra_args_support(outer).update
    try:
        return update(gradient, outer_state, arrays, **extra)
    except TypeError as e:
        if "value_fn" not in str(e):
            raise
        raise ValueError(
            "`outer` searches along a line for the least meta-loss, of which there is only "
            "an estimate at one point: use one without a line search, say "
            "`optax.adam(1e-3)`."
        ) from e


def _zero_unless(known: Bool[Array, ""], gradient: PyTree) -> PyTree:
    return jtu.tree_map(lambda x: jnp.where(known, x, 0), gradient)


# An unroll that was left out has no loss either.
def _meta_loss(estimates: Sequence[MetaGradient], weights: Array) -> Float[Array, ""]:
    losses = jnp.stack([e.meta_loss for e in estimates])
    return jnp.sum(jnp.where(weights > 0, losses * weights.astype(losses.dtype), 0))


def _metrics(
    estimates: Sequence[MetaGradient],
    weights: Array,
    gradient: PyTree,
    finite: Bool[Array, ""],
    skipped: Int[Array, ""],
) -> Metrics:
    losses = jnp.stack([e.meta_loss for e in estimates])
    norm = tree_norm(gradient, accumulator_dtype(losses.dtype))
    total = lambda name: jnp.sum(jnp.stack([getattr(e, name) for e in estimates]))
    return Metrics(
        meta_loss=_meta_loss(estimates, weights),
        gradient_norm=jnp.where(finite, norm, jnp.nan),
        diverged=total("diverged"),
        dead=total("dead"),
        dropped=total("dropped"),
        skipped=skipped,
        unroll_losses=losses,
    )
