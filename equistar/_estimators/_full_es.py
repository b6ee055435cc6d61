"""Evolution strategies over whole episodes."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import PRNGKeyArray, PyTree

from .._episodes import ConstantLength, LockStep
from .._unroll import AbstractUnroll
from ._antithetic import antithetic, check_es, gaussian, over, summarise
from ._base import AbstractEstimator, MetaGradient
from ._rollout import advance, particle_keys, start


class FullES(AbstractEstimator):
    """Evolution strategies: antithetic pairs run through whole, fresh episodes.

    $$g = \\frac{1}{N} \\sum_i \\epsilon_i \\frac{L^+_i - L^-_i}{2 \\sigma^2}$$

    with $L$ the mean loss of an episode of `length` steps. Unbiased for the gradient of
    the mean loss smoothed by $N(0, \\sigma^2 I)$.
    """

    length: int = eqx.field(static=True)
    pairs: int = eqx.field(static=True)
    sigma: float = eqx.field(static=True)

    def __init__(self, length: int, pairs: int = 8, sigma: float = 0.01):
        """**Arguments:**

        - `length`: steps of an episode.
        - `pairs`: antithetic pairs of episodes.
        - `sigma`: standard deviation of the noise.
        """
        check_es(length, pairs, sigma)
        self.length = length
        self.pairs = pairs
        self.sigma = float(sigma)

    def init(self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray) -> None:
        return None

    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: None,
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, None]:
        noise_key, data_key = jr.split(key)
        noise = gaussian(theta, self.sigma, particle_keys(noise_key, self.pairs))
        members = antithetic(theta, noise)
        keys = particle_keys(data_key, self.pairs)
        length = ConstantLength(self.length)
        # A first episode that is already over makes `advance` start the real one.
        blank = start(unroll, members, length, LockStep(), keys)
        over_already = eqx.tree_at(lambda p: p.step, blank, blank.length)
        particles, window = advance(
            unroll, members, over_already, length, self.length, keys
        )
        difference = jnp.mean(window.losses[..., 0] - window.losses[..., 1], axis=0)
        contributions = jtu.tree_map(
            lambda eps: over(difference, eps) * eps / (2 * self.sigma**2), noise
        )
        return summarise(contributions, window, particles.carry), None
