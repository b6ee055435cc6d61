"""The meta-gradient at one point."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._estimators import AbstractEstimator, MetaGradient, over
from .._kinds import as_count, check_key, check_kind
from .._numerics import all_finite
from .._unrolls import AbstractUnroll


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
        enough of them to go through whole episodes, and with `starts=LockStep()` they may
        be exactly that. `Staggered()` shortens each particle's first episode, which biases
        the mean unless `windows` covers many episodes;
        [`equistar.analysis.compare_estimators`][] discards these first windows.

    **Returns:**

    A [`equistar.MetaGradient`][]: means of gradient and meta-loss over the windows whose
    gradient is finite, and sums of its counts over all windows, so that `dropped` tells
    what the means leave out. Where no window's gradient is finite, they are over all.

    **Raises:**

    `ValueError` if an argument is not of its kind, or `windows` below 1.
    """
    check_kind(estimator, AbstractEstimator, "`estimator`", "an estimator, say `PES()`")
    check_key(key)
    return _estimated(unroll, estimator, theta, key, as_count(windows, "windows"))


@eqx.filter_jit
def _estimated(
    unroll: AbstractUnroll,
    estimator: AbstractEstimator,
    theta: PyTree,
    key: PRNGKeyArray,
    windows: int,
) -> MetaGradient:
    init_key, run_key = jr.split(key)
    particles = estimator.init(unroll, theta, key=init_key)

    def body(state: PyTree[Array], n: Int[Array, ""]) -> tuple[PyTree, Any]:
        key = jr.fold_in(run_key, n)
        estimate, state = estimator.estimate(unroll, theta, state, key=key)
        return state, estimate

    _, estimates = jax.lax.scan(body, particles, jnp.arange(windows))
    finite = jax.vmap(all_finite)(estimates.gradient)
    counted = finite | ~jnp.any(finite)

    def mean(x: Array) -> Array:
        # The same to the bit, where nothing is left out, as a mean that leaves nothing out.
        known = jnp.mean(x, axis=0, where=over(counted, x))
        return jnp.where(jnp.all(counted), jnp.mean(x, axis=0), known)

    return MetaGradient(
        gradient=jtu.tree_map(mean, estimates.gradient),
        meta_loss=mean(estimates.meta_loss),
        diverged=jnp.sum(estimates.diverged),
        dead=jnp.sum(estimates.dead),
        dropped=jnp.sum(estimates.dropped),
    )
