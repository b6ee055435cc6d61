"""What the evolution-strategies estimators share: noise, pairs and their sums."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, PyTree

from .._numerics import all_finite
from ._base import MetaGradient
from ._rollout import Window


def learned(theta: PyTree) -> PyTree:
    """The part of `theta` that is differentiated: its inexact arrays."""
    arrays = eqx.filter(theta, eqx.is_inexact_array)
    if not jtu.tree_leaves(arrays):
        raise ValueError(
            "`theta` holds no floating-point array: there is nothing to differentiate."
        )
    return arrays


# One draw on the ravelled vector compiles far faster than one for each leaf.
def gaussian(theta: PyTree, sigma: float, keys: Array) -> PyTree[Array]:
    """Noise N(0, sigma^2 I) in the structure of `theta`, for each key."""
    flat, unravel = ravel_pytree(learned(theta))
    draw = lambda key: unravel(sigma * jr.normal(key, flat.shape, flat.dtype))
    return jax.vmap(draw)(keys)


def antithetic(theta: PyTree, noise: PyTree[Array]) -> PyTree:
    """`theta + noise` and `theta - noise`, with leading axes of particles and members."""
    arrays, rest = eqx.partition(theta, eqx.is_inexact_array)
    pair = lambda p, e: jnp.stack([p[None] + e, p[None] - e], axis=1)
    return eqx.combine(jtu.tree_map(pair, arrays, noise), rest)


def same_members(theta: PyTree, particles: int, members: int) -> PyTree:
    """`theta` itself for every member."""
    arrays, rest = eqx.partition(theta, eqx.is_inexact_array)
    spread = lambda p: jnp.broadcast_to(p, (particles, members, *p.shape))
    return eqx.combine(jtu.tree_map(spread, arrays), rest)


def summarise(
    contributions: PyTree[Array], window: Window, carry: PyTree[Array]
) -> MetaGradient:
    """The mean of the particles' contributions; one that is not finite counts as zero."""
    finite = jax.vmap(all_finite)(contributions)

    def mean(x: Array) -> Array:
        return jnp.mean(jnp.where(over(finite, x), x, 0), axis=0)

    healthy = jax.vmap(jax.vmap(all_finite))(carry)
    return MetaGradient(
        gradient=jtu.tree_map(mean, contributions),
        meta_loss=jnp.mean(window.losses),
        diverged=jnp.sum(~healthy),
        dead=jnp.sum(jax.vmap(_all_zero)(contributions)),
        dropped=jnp.sum(~finite),
    )


def _all_zero(tree: PyTree[Array]) -> Bool[Array, ""]:
    leaves = [jnp.all(x == 0) for x in jtu.tree_leaves(tree)]
    return jnp.all(jnp.stack(leaves))


def over(per_particle: Array, x: Array) -> Array:
    """A number for each particle, shaped to broadcast against `x`."""
    return per_particle.reshape((-1,) + (1,) * (x.ndim - 1))


def check_es(window: int, pairs: int, sigma: float) -> None:
    """Raises a `ValueError` for a window, number of pairs or sigma that makes no sense."""
    if window < 1 or pairs < 1:
        raise ValueError(
            f"`window` and `pairs` must be at least 1; got {window} and {pairs}."
        )
    if not 0 < sigma < float("inf"):
        raise ValueError(f"`sigma` must be positive and finite; got {sigma}.")
