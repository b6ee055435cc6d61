"""Persistent evolution strategies."""

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


class _PESState(eqx.Module):
    particles: Particles
    accumulated_noise: PyTree[Array]


class PES(AbstractEstimator):
    """Persistent evolution strategies: unbiased gradients from short windows.

    Each member of an antithetic pair $\\theta \\pm \\epsilon$ carries its own state from
    window to window, and the pair accumulates the noise $\\xi$ that its episode has seen.
    With $\\Delta_t = l^+_t - l^-_t$, in each window of $K$ steps:

    $$\\xi \\leftarrow \\xi + \\epsilon, \\qquad
    g = \\frac{1}{2 \\sigma^2 K} \\sum_t \\Delta_t \\, (\\xi \\text{ or } \\epsilon)$$

    with $\\xi$ for the steps of the episode that was running when the window began and
    $\\epsilon$ for those of episodes that began inside it. The estimate is the mean of
    $g$ over the pairs. It is unbiased for the gradient of the mean loss, smoothed by
    $N(0, \\sigma^2 I)$ independently in each window.

    ??? cite "Reference"

        ```bibtex
        @inproceedings{vicol2021unbiased,
            title={Unbiased Gradient Estimation in Unrolled Computation Graphs with
                   Persistent Evolution Strategies},
            author={Vicol, Paul and Metz, Luke and Sohl-Dickstein, Jascha},
            booktitle={International Conference on Machine Learning},
            year={2021},
            eprint={2112.13835},
        }
        ```
    """

    length: AbstractEpisodeLength
    starts: AbstractStarts
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
    ):
        """**Arguments:**

        - `window`: $K$, steps between two estimates. It need not divide the episodes.
        - `pairs`: antithetic pairs of particles.
        - `sigma`: standard deviation of the noise.
        - `length`: the episodes' length.
        - `starts`: `Staggered()`, or `LockStep()`.
        """
        check_es(window, pairs, sigma)
        self.window = window
        self.pairs = pairs
        self.sigma = float(sigma)
        self.length = length
        self.starts = starts

    def init(
        self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
    ) -> _PESState:
        zeros = lambda p: jnp.zeros((self.pairs, *p.shape), p.dtype)
        accumulated = jtu.tree_map(zeros, learned(theta))
        members = same_members(theta, self.pairs, 2)
        keys = particle_keys(key, self.pairs)
        particles = start(unroll, members, self.length, self.starts, keys)
        return _PESState(particles, accumulated)

    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: _PESState,
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, _PESState]:
        noise_key, data_key = jr.split(key)
        noise = gaussian(theta, self.sigma, particle_keys(noise_key, self.pairs))
        particles, window = advance(
            unroll,
            antithetic(theta, noise),
            state.particles,
            self.length,
            self.window,
            particle_keys(data_key, self.pairs),
        )
        accumulated = jtu.tree_map(jnp.add, state.accumulated_noise, noise)

        difference = window.losses[..., 0] - window.losses[..., 1]
        old = jnp.sum(jnp.where(window.fresh, 0, difference), axis=0)
        new = jnp.sum(jnp.where(window.fresh, difference, 0), axis=0)
        scale = 1 / (2 * self.sigma**2 * self.window)
        contributions = jtu.tree_map(
            lambda xi, eps: scale * (over(old, xi) * xi + over(new, xi) * eps),
            accumulated,
            noise,
        )

        began = window.fresh[-1]
        ended = particles.step >= particles.length
        accumulated = jtu.tree_map(
            lambda xi, eps: jnp.where(
                over(ended, xi), 0, jnp.where(over(began, xi), eps, xi)
            ),
            accumulated,
            noise,
        )
        meta_gradient = summarise(contributions, window, particles.carry)
        return meta_gradient, _PESState(particles, accumulated)
