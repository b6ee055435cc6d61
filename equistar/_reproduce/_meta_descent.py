"""Descent on an unroll by an estimator's meta-gradients, with the whole path kept."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .._estimators import AbstractEstimator
from .._unrolls import AbstractUnroll


@eqx.filter_jit
def meta_descent(
    unroll: AbstractUnroll,
    estimator: AbstractEstimator,
    theta: Float[Array, " n"],
    outer: optax.GradientTransformation,
    *,
    steps: int,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "steps n"], Float[Array, " steps"]]:
    """`theta` before each step, and the meta-loss that the step saw."""

    def body(state, n):
        theta, outer_state, particles = state
        estimate, particles = estimator.estimate(
            unroll, theta, particles, key=jr.fold_in(run_key, n)
        )
        with jax.numpy_dtype_promotion("standard"):
            updates, outer_state = outer.update(estimate.gradient, outer_state, theta)
        after = optax.apply_updates(theta, updates)
        return (after, outer_state, particles), (theta, estimate.meta_loss)

    init_key, run_key = jr.split(key)
    particles = estimator.init(unroll, theta, key=init_key)
    state = theta, outer.init(theta), particles
    return jax.lax.scan(body, state, jnp.arange(steps))[1]
