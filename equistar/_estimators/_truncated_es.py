"""Evolution strategies on truncated windows."""

import abc

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._episodes import AbstractEpisodeLength, AbstractStarts, ConstantLength, Staggered
from .._unroll import AbstractUnroll
from ._antithetic import (
    antithetic,
    check_es,
    gaussian,
    learned,
    over,
    same_members,
    summarise,
)
from ._base import AbstractEstimator, MetaGradient
from ._rollout import advance, particle_keys, Particles, start


class AbstractCarried(eqx.Module):
    """Whose state both members of a pair start the next window from."""

    @abc.abstractmethod
    def members(self, theta: PyTree, pairs: PyTree) -> PyTree:
        """All members of a particle: the pair, and whoever else must run."""

    @abc.abstractmethod
    def carried(self, member: Array) -> Array:
        """From an array with an axis of members, the one that is carried on."""


class PlusMember(AbstractCarried):
    """The + member's, as the released implementation of the STAR paper has it."""

    def members(self, theta: PyTree, pairs: PyTree) -> PyTree:
        return pairs

    def carried(self, member: Array) -> Array:
        return member[:, 0]


class MeanTheta(AbstractCarried):
    """That of the unperturbed `theta`, which runs beside the pair at half its cost."""

    def members(self, theta: PyTree, pairs: PyTree) -> PyTree:
        arrays, rest = eqx.partition(pairs, eqx.is_inexact_array)
        join = lambda pair, mean: jnp.concatenate(
            [pair, jnp.broadcast_to(mean, (len(pair), 1, *mean.shape))], axis=1
        )
        return eqx.combine(jtu.tree_map(join, arrays, learned(theta)), rest)

    def carried(self, member: Array) -> Array:
        return member[:, 2]


class TruncatedES(AbstractEstimator):
    """Evolution strategies on windows that start from a carried state.

    $$g = \\frac{\\epsilon}{2 \\sigma^2 K} \\sum_t (l^+_t - l^-_t)$$

    Both members of a pair start each window from the same carried state. Biased: it
    ignores what $\\theta$ did before the window. See [`equistar.PES`][] for the cure.
    """

    length: AbstractEpisodeLength
    starts: AbstractStarts
    carried: AbstractCarried
    window: int = eqx.field(static=True)
    pairs: int = eqx.field(static=True)
    sigma: float = eqx.field(static=True)

    def __init__(
        self,
        window: int = 50,
        pairs: int = 8,
        sigma: float = 0.01,
        length: AbstractEpisodeLength = ConstantLength(2000),
        starts: AbstractStarts = Staggered(),
        carried: AbstractCarried = PlusMember(),
    ):
        """**Arguments:** as for [`equistar.PES`][], and

        - `carried`: whose state the next window starts from, `PlusMember()` or
            `MeanTheta()`.
        """
        check_es(window, pairs, sigma)
        self.window = window
        self.pairs = pairs
        self.sigma = float(sigma)
        self.length = length
        self.starts = starts
        self.carried = carried

    def init(
        self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
    ) -> Particles:
        learned(theta)
        pairs = same_members(theta, self.pairs, 2)
        members = self.carried.members(theta, pairs)
        keys = particle_keys(key, self.pairs)
        return start(unroll, members, self.length, self.starts, keys)

    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: Particles,
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, Particles]:
        noise_key, data_key = jr.split(key)
        noise = gaussian(theta, self.sigma, particle_keys(noise_key, self.pairs))
        particles, window = advance(
            unroll,
            self.carried.members(theta, antithetic(theta, noise)),
            state,
            self.length,
            self.window,
            particle_keys(data_key, self.pairs),
        )
        difference = jnp.mean(window.losses[..., 0] - window.losses[..., 1], axis=0)
        contributions = jtu.tree_map(
            lambda eps: over(difference, eps) * eps / (2 * self.sigma**2), noise
        )
        meta_gradient = summarise(contributions, window, particles.carry)

        def share(x: Array) -> Array:
            return jnp.broadcast_to(self.carried.carried(x)[:, None], x.shape)

        carry = jtu.tree_map(share, particles.carry)
        return meta_gradient, eqx.tree_at(lambda p: p.carry, particles, carry)
