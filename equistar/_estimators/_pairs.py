"""What evolution-strategies estimators share: noise, pairs and their differences."""

import functools as ft
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._devices import shard_particles
from .._kinds import as_number, check_count
from ._noise import AbstractNoise
from ._particles import learned, over
from ._rollout import particle_keys
from ._sampling import AbstractSampling, AbstractShaping


def as_sigma(value: Any) -> float:
    """The scale of the noise as a float."""
    return as_number(value, "`sigma`", "0.01")


# Perturbations would be rounded to half a hundredth of the numbers themselves, and what is
# multiplied by the losses is not what was added.
def _perturbable(theta: PyTree) -> PyTree[Array]:
    arrays = learned(theta)
    narrow = {x.dtype.name for x in jtu.tree_leaves(arrays) if x.dtype.itemsize < 4}
    if narrow:
        raise ValueError(
            f"`theta` has arrays of {', '.join(sorted(narrow))}, where perturbations are "
            "lost in rounding: keep it in float32, and cast it where the unroll uses it."
        )
    return arrays


class Pairs(eqx.Module):
    """Pairs of perturbed meta-parameters, and the gradients that their losses give."""

    number: int
    sigma: float
    noise: AbstractNoise
    sampling: AbstractSampling
    shaping: AbstractShaping

    def check(self) -> None:
        """Raises a `ValueError` for a number of pairs or a sigma that makes no sense."""
        check_count(self.number, "pairs")
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"`sigma` must be positive and finite; got {self.sigma}.")

    # One draw on the ravelled vector compiles far faster than one for each leaf.
    def draw(self, theta: PyTree, *, key: PRNGKeyArray) -> PyTree[Array]:
        """The noise of each particle, in the structure of `theta`."""
        arrays = _perturbable(theta)
        flat, unravel = ravel_pytree(arrays)
        scale = self.noise.scale(arrays)

        def one(key: PRNGKeyArray) -> PyTree[Array]:
            noise = unravel(self.sigma * jr.normal(key, flat.shape, flat.dtype))
            return jtu.tree_map(jnp.multiply, noise, scale)

        return jax.vmap(one)(particle_keys(key, self.number))

    def nothing(self, theta: PyTree) -> PyTree[Array]:
        """No noise of any particle, as those of `draw`."""
        arrays = _perturbable(theta)
        scaled = lambda p, s: jnp.zeros((self.number, *p.shape), p.dtype) * s
        zeros = jtu.tree_map(scaled, arrays, self.noise.scale(arrays))
        return shard_particles(zeros, self.number)

    def perturb(self, theta: PyTree, noise: PyTree[Array]) -> PyTree:
        """The members of each pair, with leading axes of particles and members."""
        arrays, rest = eqx.partition(theta, eqx.is_inexact_array)
        plus, minus = self.sampling.signs
        pair = lambda p, e: jnp.stack([p[None] + plus * e, p[None] + minus * e], axis=1)
        return eqx.combine(jtu.tree_map(pair, arrays, noise), rest)

    # Before anything is summed: equal losses cancel exactly, and nearly equal ones well.
    def difference(self, values: Float[Array, "... members"]) -> Float[Array, "..."]:
        """What the first member of each pair has above the second."""
        return values[..., 0] - values[..., 1]

    def gradients(
        self,
        theta: PyTree,
        *terms: tuple[Float[Array, " particles"], PyTree[Array]],
    ) -> PyTree[Array]:
        """Each particle's gradient.

        **Arguments:**

        - `theta`: the meta-parameters.
        - `terms`: differences, each with the noise that it is credited to.
        """
        plus, minus = self.sampling.signs
        differences = [self.shaping(difference) for difference, _ in terms]

        def leaf(scale: Array, *noises: Array) -> Array:
            # Losses may be wider than theta.
            pairs = zip(differences, noises, strict=True)
            credits = [over(d, e).astype(e.dtype) * e for d, e in pairs]
            total = ft.reduce(jnp.add, credits)
            return total / ((plus - minus) * (self.sigma * scale) ** 2)

        scale = self.noise.scale(learned(theta))
        return jtu.tree_map(leaf, scale, *(noise for _, noise in terms))
