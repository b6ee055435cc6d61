"""Noise-reuse evolution strategies."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._kinds import as_int
from .._unrolls import (
    AbstractEpisodeLength,
    AbstractStarts,
    AbstractStepObjective,
    AbstractUnroll,
    as_length,
    ConstantLength,
    MeanLoss,
    Staggered,
)
from ._base import MetaGradient
from ._checks import check_state
from ._noise import AbstractNoise, IsotropicNoise
from ._own_parts import check_run
from ._pairs import as_sigma
from ._particles import are_finite, over, same_members, summarise
from ._rollout import advance, particle_keys, Particles, start
from ._sampling import AbstractSampling, AbstractShaping, AntitheticPairs, NoShaping
from ._windowed import AbstractWindowedPairs


class _NRESState(eqx.Module):
    """Particles, and the noise of each one's episode."""

    particles: Particles
    noise: PyTree[Array]


class NRES(AbstractWindowedPairs):
    """Noise-reuse evolution strategies, also known as ES-single.

    Each antithetic pair $\\theta \\pm \\epsilon$ keeps one perturbation for a whole
    episode. With $\\Delta_t = l^+_t - l^-_t$, in each window of $K$ steps:

    $$g = \\frac{1}{2 \\sigma^2 K} \\sum_t \\Delta_t \\, \\epsilon$$

    where $\\epsilon$ belongs to the episode of step $t$; episodes that begin in the same
    window share it. Unbiased for the gradient of the mean loss smoothed by
    $N(0, \\sigma^2 I)$, at a lower variance than [`equistar.PES`][] and the same cost.

    **Arguments:** as for [`equistar.PES`][].

    **Raises:** as [`equistar.PES`][].

    ??? cite

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

    window: int = eqx.field(default=50, converter=as_int, static=True)
    pairs: int = eqx.field(default=8, converter=as_int, static=True)
    sigma: float = eqx.field(default=0.01, static=True, converter=as_sigma)
    length: AbstractEpisodeLength = eqx.field(
        default=ConstantLength(2000), converter=as_length
    )
    starts: AbstractStarts = Staggered()
    objective: AbstractStepObjective = MeanLoss()
    noise: AbstractNoise = IsotropicNoise()
    sampling: AbstractSampling = AntitheticPairs()
    shaping: AbstractShaping = NoShaping()

    def init(
        self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
    ) -> _NRESState:
        check_run(self, unroll, theta, key=key)
        # The second of two, as in `estimate`: estimates for a key rest on it. Noise is
        # drawn by the first window, in which an episode of every particle begins.
        _, start_key = jr.split(key)
        keys = particle_keys(start_key, self.pairs)
        members = same_members(theta, self.pairs, 2)
        particles = start(unroll, members, self.length, self.starts, keys)
        return _NRESState(particles, self._pairs.nothing(theta))

    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: _NRESState,
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, _NRESState]:
        noise_key, data_key = jr.split(key)
        fresh = self._pairs.draw(theta, key=noise_key)
        fresh_members = self._pairs.perturb(theta, fresh)
        check_state(state, _NRESState, fresh_members, "noise")
        particles, window = advance(
            unroll,
            self._pairs.perturb(theta, state.noise),
            state.particles,
            self.length,
            self.window,
            particle_keys(data_key, self.pairs),
            fresh_members=fresh_members,
        )
        values = window.values(self.objective, window.losses)
        old, new = window.split_mean(self._pairs.difference(values))
        contributions = self._pairs.gradients(theta, (old, state.noise), (new, fresh))
        began = window.fresh[-1]
        noise = jtu.tree_map(
            lambda e, f: jnp.where(over(began, e), f, e), state.noise, fresh
        )
        meta_gradient = summarise(contributions, values, are_finite(particles.carry))
        return meta_gradient, _NRESState(particles, noise)
