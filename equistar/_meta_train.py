"""The outer loop: meta-training of an optimizer, or of any pytree, through an unroll."""

import functools as ft
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from ._checkpoints import AbstractCheckpoints, NoCheckpoints
from ._devices import replicate
from ._estimators import AbstractEstimator, MetaGradient
from ._logger import AbstractLogger, Metrics, NoLogger, stack_metrics, unstack_metrics
from ._numerics import all_finite
from ._outer import default_outer
from ._results import RESULTS
from ._unroll import AbstractUnroll


class MetaTrainState(eqx.Module):
    """Everything that the next meta-step depends on.

    **Attributes:**

    - `theta`: the meta-parameters.
    - `outer_state`: the outer optimizer's state.
    - `particles`: the estimator's state.
    - `key`: the run's PRNG key; step n draws from `fold_in(key, n)`.
    - `step`: meta-steps made.
    - `skipped`: meta-steps skipped because their gradient was not finite.
    """

    theta: PyTree
    outer_state: PyTree
    particles: PyTree[Array]
    key: PRNGKeyArray
    step: Int[Array, ""]
    skipped: Int[Array, ""]


class MetaTrainResult(eqx.Module):
    """What [`equistar.meta_train`][] returns.

    **Attributes:**

    - `theta`: the meta-trained pytree, of the type that went in.
    - `history`: the metrics of every meta-step, arrays with one leading axis.
    - `state`: to go on from, with `meta_train_step`.
    - `result`: a `RESULTS` member.
    """

    theta: PyTree
    history: Metrics
    state: MetaTrainState
    result: RESULTS


def meta_train_init(
    unroll: AbstractUnroll,
    estimator: AbstractEstimator,
    theta: PyTree,
    outer: optax.GradientTransformation,
    *,
    key: PRNGKeyArray,
) -> MetaTrainState:
    """The state before the first meta-step. Arguments as for `meta_train`."""
    unroll, theta, key = replicate((unroll, theta, key))
    init_key, run_key = jr.split(key)
    zero = replicate(jnp.zeros((), jnp.int32))
    # A weakly typed array would become a strong one, and the next step compile again.
    strong = lambda x: x.astype(x.dtype) if eqx.is_inexact_array(x) else x
    theta = jtu.tree_map(strong, theta)
    with jax.numpy_dtype_promotion("standard"):
        outer_state = outer.init(eqx.filter(theta, eqx.is_inexact_array))
    particles = _init_particles(unroll, estimator, theta, init_key)
    return MetaTrainState(theta, outer_state, particles, run_key, zero, zero)


@eqx.filter_jit
def _init_particles(
    unroll: AbstractUnroll, estimator: AbstractEstimator, theta: PyTree, key: Array
) -> PyTree[Array]:
    return estimator.init(unroll, theta, key=key)


@eqx.filter_jit
def meta_train_step(
    unroll: AbstractUnroll,
    estimator: AbstractEstimator,
    outer: optax.GradientTransformation,
    state: MetaTrainState,
) -> tuple[MetaTrainState, Metrics]:
    """One estimate of the meta-gradient and one step of the outer optimizer.

    A meta-gradient that is not finite is skipped whole, and counted.
    """
    key = jr.fold_in(state.key, state.step)
    estimate, particles = estimator.estimate(unroll, state.theta, state.particles, key=key)
    finite = all_finite(estimate.gradient)
    arrays, rest = eqx.partition(state.theta, eqx.is_inexact_array)
    # Optax's optimizers promote weak to strong types, which strict promotion refuses.
    with jax.numpy_dtype_promotion("standard"):
        updates, outer_state = outer.update(estimate.gradient, state.outer_state, arrays)
        moved = optax.apply_updates(arrays, updates)
    keep = lambda new, old: jnp.where(finite, new, old)
    skipped = state.skipped + jnp.where(finite, 0, 1).astype(state.skipped.dtype)
    state = MetaTrainState(
        eqx.combine(jtu.tree_map(keep, moved, arrays), rest),
        jtu.tree_map(keep, outer_state, state.outer_state),
        particles,
        state.key,
        state.step + 1,
        skipped,
    )
    return state, _metrics(estimate, skipped)


def _metrics(estimate: MetaGradient, skipped: Int[Array, ""]) -> Metrics:
    squares = [jnp.sum(g * g) for g in jtu.tree_leaves(estimate.gradient)]
    return Metrics(
        meta_loss=estimate.meta_loss,
        gradient_norm=jnp.sqrt(ft.reduce(jnp.add, squares)),
        diverged=estimate.diverged,
        dead=estimate.dead,
        dropped=estimate.dropped,
        skipped=skipped,
    )


def meta_train(
    unroll: AbstractUnroll,
    estimator: AbstractEstimator,
    theta: PyTree,
    outer: optax.GradientTransformation | None = None,
    *,
    steps: int,
    key: PRNGKeyArray,
    logger: AbstractLogger = NoLogger(),
    checkpoints: AbstractCheckpoints = NoCheckpoints(),
    max_skipped: int = 100,
    throw: bool = True,
) -> MetaTrainResult:
    """Meta-trains `theta`, say a learned optimizer, through an unroll.

    !!! Example

        ```python
        unroll = eqs.InnerTraining(eqs.tasks.digits_mlp())
        star = eqs.STAR(key=jr.key(0))
        result = eqs.meta_train(unroll, eqs.PES(), star, steps=1000, key=jr.key(1))
        star = result.theta
        ```

    **Arguments:**

    - `unroll`: what to differentiate through.
    - `estimator`: how, say [`equistar.PES`][].
    - `theta`: the meta-parameters; its inexact arrays are trained.
    - `outer`: any optax optimizer; by default [`equistar.default_outer`][].
    - `steps`: number of meta-steps.
    - `key`: a PRNG key.
    - `logger`: told of every meta-step.
    - `checkpoints`: where the run's state is kept, say `Checkpoints("my-run")`: started
        again with the same arguments, the run goes on from there.
    - `max_skipped`: the run stops after so many meta-steps with a non-finite gradient.
    - `throw`: whether a run that fails raises.

    **Returns:**

    A [`equistar.MetaTrainResult`][]. Ctrl-C ends the run early and returns what has been
    trained so far, with the result `RESULTS.interrupted`.

    **Raises:**

    If `throw` is true: `RuntimeError` if meta-gradients were not finite, and
    `jax.errors.JaxRuntimeError` if a device or another process failed. Otherwise the
    result says so, and what was trained until then is returned.
    """
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1; got {steps}.")
    outer = default_outer() if outer is None else outer
    unroll = replicate(unroll)
    state = meta_train_init(unroll, estimator, theta, outer, key=key)
    result = RESULTS.successful
    with checkpoints.locked():
        state, earlier = checkpoints.restore(state)
        history = [] if earlier is None else unstack_metrics(earlier)
        keep = lambda *, last: checkpoints.save(len(history), state, history, last=last)
        try:
            for step in range(len(history) + 1, steps + 1):
                # Nothing of a step is kept before its metrics have arrived: where a process
                # has died, the arrays of the step that it missed cannot be read.
                after, metrics = meta_train_step(unroll, estimator, outer, state)
                metrics = jax.device_get(metrics)
                state = after
                history.append(metrics)
                stop = bool(metrics.skipped >= max_skipped)
                keep(last=stop or step == steps)
                logger(step, metrics, state.theta)
                if stop:
                    result = RESULTS.no_meta_gradient
                    break
        except KeyboardInterrupt:
            if not history:
                raise
            keep(last=True)
            result = RESULTS.interrupted
        except jax.errors.JaxRuntimeError:
            if throw or not history:
                raise
            result = RESULTS.process_lost
    if throw and result == RESULTS.no_meta_gradient:
        raise RuntimeError(RESULTS[result])
    return MetaTrainResult(state.theta, stack_metrics(history), state, result)


@eqx.filter_jit
def meta_gradient(
    unroll: AbstractUnroll,
    estimator: AbstractEstimator,
    theta: PyTree,
    *,
    key: PRNGKeyArray,
    windows: int = 1,
) -> MetaGradient:
    """Estimates the gradient of an unroll's mean loss at a fixed `theta`.

    **Arguments:**

    - `unroll`: what to differentiate.
    - `estimator`: how, say [`equistar.PES`][].
    - `theta`: the meta-parameters; its inexact arrays are differentiated.
    - `key`: a PRNG key.
    - `windows`: how many consecutive estimates to average. A windowed estimator needs
        enough of them to go through whole episodes.

    **Returns:**

    A [`equistar.MetaGradient`][]: means over the windows, and sums of its counts.

    **Raises:**

    `ValueError` if `windows` is below 1.
    """
    if windows < 1:
        raise ValueError(f"`windows` must be at least 1; got {windows}.")
    init_key, run_key = jr.split(key)
    particles = estimator.init(unroll, theta, key=init_key)

    def body(state: PyTree[Array], n: Int[Array, ""]) -> tuple[PyTree, Any]:
        key = jr.fold_in(run_key, n)
        estimate, state = estimator.estimate(unroll, theta, state, key=key)
        return state, estimate

    _, estimates = jax.lax.scan(body, particles, jnp.arange(windows))
    mean = lambda x: jnp.mean(x, axis=0)
    return MetaGradient(
        gradient=jtu.tree_map(mean, estimates.gradient),
        meta_loss=mean(estimates.meta_loss),
        diverged=jnp.sum(estimates.diverged),
        dead=jnp.sum(estimates.dead),
        dropped=jnp.sum(estimates.dropped),
    )
