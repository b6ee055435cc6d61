"""Noise-reuse evolution strategies."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._episodes import AbstractEpisodeLength, AbstractStarts, ConstantLength, Staggered
from .._unroll import AbstractUnroll
from ._antithetic import antithetic, check_es, gaussian, over, summarise
from ._base import AbstractEstimator, MetaGradient
from ._rollout import advance, particle_keys, Particles, start


class _NRESState(eqx.Module):
    particles: Particles
    noise: PyTree[Array]


class NRES(AbstractEstimator):
    """Noise-reuse evolution strategies, also known as ES-single.

    Each antithetic pair $\\theta \\pm \\epsilon$ keeps one perturbation for a whole
    episode. With $\\Delta_t = l^+_t - l^-_t$, in each window of $K$ steps:

    $$g = \\frac{1}{2 \\sigma^2 K} \\sum_t \\Delta_t \\, \\epsilon$$

    with $\\epsilon$ that of the episode to which step $t$ belongs; episodes that begin
    in the same window share it. Unbiased for the gradient of the mean loss smoothed by
    $N(0, \\sigma^2 I)$, at a lower variance than [`equistar.PES`][] and the same cost.

    ??? cite "References"

        ```bibtex
        @inproceedings{li2023noise,
            title={Noise-Reuse in Online Evolution Strategies},
            author={Li, Oscar and Harrison, James and Sohl-Dickstein, Jascha and
                    Smith, Virginia and Metz, Luke},
            booktitle={Advances in Neural Information Processing Systems},
            year={2023},
            eprint={2304.12180},
        }
        @inproceedings{vicol2023low,
            title={Low-Variance Gradient Estimation in Unrolled Computation Graphs with
                   ES-Single},
            author={Vicol, Paul},
            booktitle={International Conference on Machine Learning},
            year={2023},
            eprint={2304.11153},
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
        """**Arguments:** as for [`equistar.PES`][]."""
        check_es(window, pairs, sigma)
        self.window = window
        self.pairs = pairs
        self.sigma = float(sigma)
        self.length = length
        self.starts = starts

    def init(
        self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
    ) -> _NRESState:
        noise_key, start_key = jr.split(key)
        noise = gaussian(theta, self.sigma, particle_keys(noise_key, self.pairs))
        keys = particle_keys(start_key, self.pairs)
        members = antithetic(theta, noise)
        return _NRESState(start(unroll, members, self.length, self.starts, keys), noise)

    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: _NRESState,
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, _NRESState]:
        noise_key, data_key = jr.split(key)
        fresh = gaussian(theta, self.sigma, particle_keys(noise_key, self.pairs))
        particles, window = advance(
            unroll,
            antithetic(theta, state.noise),
            state.particles,
            self.length,
            self.window,
            particle_keys(data_key, self.pairs),
            fresh_members=antithetic(theta, fresh),
        )
        difference = window.losses[..., 0] - window.losses[..., 1]
        old = jnp.sum(jnp.where(window.fresh, 0, difference), axis=0)
        new = jnp.sum(jnp.where(window.fresh, difference, 0), axis=0)
        scale = 1 / (2 * self.sigma**2 * self.window)
        contributions = jtu.tree_map(
            lambda e, f: scale * (over(old, e) * e + over(new, f) * f), state.noise, fresh
        )
        began = window.fresh[-1]
        noise = jtu.tree_map(
            lambda e, f: jnp.where(over(began, e), f, e), state.noise, fresh
        )
        meta_gradient = summarise(contributions, window, particles.carry)
        return meta_gradient, _NRESState(particles, noise)
