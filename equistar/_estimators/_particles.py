"""What estimators share: spreading `theta` over particles, and summing what they give."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, PyTree

from .._devices import constrain_replicated
from .._numerics import all_finite
from ._base import MetaGradient


def learned(theta: PyTree) -> PyTree:
    """The part of `theta` that is differentiated: its inexact arrays."""
    arrays = eqx.filter(theta, eqx.is_inexact_array)
    if not jtu.tree_leaves(arrays):
        raise ValueError(
            "`theta` holds no floating-point array: there is nothing to differentiate."
        )
    if any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in jtu.tree_leaves(arrays)):
        raise ValueError(
            "`theta` holds complex numbers, whose gradients estimators do not agree on: "
            "hold real and imaginary parts as arrays of their own."
        )
    return arrays


def same_members(theta: PyTree, particles: int, members: int) -> PyTree:
    """`theta` itself for every member."""
    arrays, rest = eqx.partition(theta, eqx.is_inexact_array)
    spread = lambda p: jnp.broadcast_to(p, (particles, members, *p.shape))
    return eqx.combine(jtu.tree_map(spread, arrays), rest)


def summarise(
    contributions: PyTree[Array],
    values: Float[Array, "..."],
    healthy: Bool[Array, "particles members"],
) -> MetaGradient:
    """The mean of the particles' contributions; one that is not finite counts as zero.

    It is NaN where none is finite, so that the meta-step is skipped, and counted as such.

    **Arguments:**

    - `contributions`: gradients with a leading axis of particles.
    - `values`: of the objective; the mean of those that are finite is the meta-loss.
    - `healthy`: whether the carry of each member is finite.
    """
    finite = jax.vmap(all_finite)(contributions)

    def mean(x: Array) -> Array:
        known = jnp.mean(jnp.where(over(finite, x), x, 0), axis=0)
        return jnp.where(jnp.any(finite), known, jnp.nan)

    meta_gradient = MetaGradient(
        gradient=jtu.tree_map(mean, contributions),
        meta_loss=jnp.mean(values, where=jnp.isfinite(values)),
        diverged=jnp.sum(~healthy),
        dead=jnp.sum(jax.vmap(_all_zero)(contributions)),
        dropped=jnp.sum(~finite),
    )
    return constrain_replicated(meta_gradient)


def are_finite(carry: PyTree[Array]) -> Bool[Array, "particles members"]:
    """Whether the carry of each member is finite."""
    return jax.vmap(jax.vmap(all_finite))(carry)


def _all_zero(tree: PyTree[Array]) -> Bool[Array, ""]:
    leaves = [jnp.all(x == 0) for x in jtu.tree_leaves(tree)]
    return jnp.all(jnp.stack(leaves))


def over(per_particle: Array, x: Array) -> Array:
    """A number for each particle, shaped to broadcast against `x`."""
    return per_particle.reshape((-1,) + (1,) * (x.ndim - 1))
