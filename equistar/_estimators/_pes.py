"""Persistent evolution strategies."""

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
from ._window import Window
from ._windowed import AbstractWindowedPairs


class PESState(eqx.Module):
    """Particles, and the noise that each one's episode has seen."""

    particles: Particles
    accumulated_noise: PyTree[Array]


class PES(AbstractWindowedPairs):
    """Persistent evolution strategies: unbiased gradients from short windows.

    Each member of an antithetic pair $\\theta \\pm \\epsilon$ carries its own state from
    window to window, and the pair accumulates the noise $\\xi$ that its episode has seen.
    With $\\Delta_t = l^+_t - l^-_t$, in each window of $K$ steps:

    $$\\xi \\leftarrow \\xi + \\epsilon, \\qquad
    g = \\frac{1}{2 \\sigma^2 K} \\sum_t \\Delta_t \\, (\\xi \\text{ or } \\epsilon)$$

    with $\\epsilon \\sim N(0, \\sigma^2 I)$, $\\xi$ for the steps of the episode that was
    running when the window began, and $\\epsilon$ for those of episodes that began inside
    it. The estimate is the mean of $g$ over the pairs. It is unbiased for the gradient of
    the mean loss, smoothed by $N(0, \\sigma^2 I)$ independently in each window.

    **Arguments:**

    - `window`: $K$, steps of the unroll between two estimates.
    - `pairs`: $N$, antithetic pairs; each is one particle.
    - `sigma`: $\\sigma$, standard deviation of the noise, in units of `theta`.
    - `length`: of the episodes, in steps; a number, or lengths to draw from. Windows need
        not divide it.
    - `starts`: `Staggered()`, so that particles do not restart together, or `LockStep()`.
    - `objective`: the function of the losses to minimise; a sum over steps.
    - `noise`: its shape, `IsotropicNoise()` or `PerLeafNoise(...)`.
    - `sampling`: `AntitheticPairs()` or `ForwardDifference()`.
    - `shaping`: `NoShaping()`; `ClipDifference(limit)` and `SignDifference()` limit
        outliers, and make the estimate biased.

    **Raises:**

    `ValueError` if an argument is not of its kind, `window` or `pairs` is below 1, `sigma`
    is not positive and finite, or `objective` needs whole episodes.

    ??? cite

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

    def init(self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray) -> PESState:
        return begin(self, unroll, theta, key=key)

    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: PESState,
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, PESState]:
        noise_key, data_key = jr.split(key)
        noise = self._pairs.draw(theta, key=noise_key)
        members = self._pairs.perturb(theta, noise)
        check_state(state, PESState, members, "accumulated_noise")
        particles, window = advance(
            unroll,
            members,
            state.particles,
            self.length,
            self.window,
            particle_keys(data_key, self.pairs),
        )
        seen = jtu.tree_map(jnp.add, state.accumulated_noise, noise)
        values = window.values(self.objective, window.losses)
        old, new = window.split_mean(self._pairs.difference(values))
        contributions = self._pairs.gradients(theta, (old, seen), (new, noise))
        meta_gradient = summarise(contributions, values, are_finite(particles.carry))
        return meta_gradient, PESState(particles, carry_on(seen, noise, window, particles))


def begin(
    estimator: AbstractWindowedPairs,
    unroll: AbstractUnroll,
    theta: PyTree,
    *,
    key: PRNGKeyArray,
) -> PESState:
    """The particles before the first window, of which none has seen any noise."""
    check_run(estimator, unroll, theta, key=key)
    seen = estimator._pairs.nothing(theta)
    members = same_members(theta, estimator.pairs, 2)
    keys = particle_keys(key, estimator.pairs)
    particles = start(unroll, members, estimator.length, estimator.starts, keys)
    return PESState(particles, seen)


def carry_on(
    seen: PyTree[Array], noise: PyTree[Array], window: Window, particles: Particles
) -> PyTree[Array]:
    """The noise that a particle's episode has seen when the next window begins."""
    began, ended = window.fresh[-1], particles.step >= particles.length
    return jtu.tree_map(
        lambda xi, eps: jnp.where(over(ended, xi), 0, jnp.where(over(began, xi), eps, xi)),
        seen,
        noise,
    )
