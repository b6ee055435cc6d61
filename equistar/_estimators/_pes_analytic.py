"""Persistent evolution strategies with the window's own gradient as a control variate."""

import functools as ft
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

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
from ._pairs import as_sigma
from ._particles import are_finite, same_members, summarise
from ._pes import begin, carry_on, PESState
from ._remat import AbstractRematerialisation, WithinMemory
from ._rollout import advance, particle_keys, Particles
from ._sampling import AbstractSampling, AbstractShaping, AntitheticPairs, NoShaping
from ._windowed import AbstractWindowedPairs


class PESAnalytic(AbstractWindowedPairs):
    """PES with the truncated analytic gradient as a control variate.

    Besides the window of [`equistar.PES`][], each member runs the same window from the
    same carried state at the unperturbed $\\theta$, where back-propagation gives the
    gradient $p^\\pm = \\nabla_\\theta \\frac{1}{K} \\sum_t l^\\pm_t$ of that window alone.
    It predicts the effect of the window's own noise on the losses:

    $$g = \\frac{\\xi}{2 \\sigma^2} \\left(\\Delta - \\epsilon^\\top (p^+ + p^-)\\right)
    + \\tfrac12 (p^+ + p^-), \\qquad
    \\Delta = \\frac{1}{K} \\sum_t \\Delta_t$$

    with $\\epsilon$ in place of $\\xi$ for episodes that began inside the window. The
    subtracted and the added term have the same mean, since $p^\\pm$ does not depend on
    $\\epsilon$ and $E[\\xi \\epsilon^\\top] = \\sigma^2 I$. So the estimate stays unbiased
    for the gradient that PES estimates. Its variance is lower, because the first-order
    effect of $\\epsilon$ on the losses is removed; the price is a back-propagation. It pays
    if a window is a good part of an episode and the unroll is not chaotic within it.

    **Arguments:** as for [`equistar.PES`][], and

    - `remat`: as for [`equistar.TruncatedBackprop`][].

    Shaping acts on a difference after the prediction has been subtracted.

    **Raises:** as [`equistar.PES`][].

    ??? cite

        After section 4.3 of the PES paper:

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
    remat: AbstractRematerialisation = WithinMemory()

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
        keys = particle_keys(data_key, self.pairs)
        members = self._pairs.perturb(theta, noise)
        check_state(state, PESState, members, "accumulated_noise")
        settings = state.particles, self.length, self.window, keys
        particles, window = advance(unroll, members, *settings)
        seen = jtu.tree_map(jnp.add, state.accumulated_noise, noise)
        values = window.values(self.objective, window.losses)
        old, new = window.split_mean(self._pairs.difference(values))
        old_slope, new_slope = self._slopes(unroll, theta, state.particles, keys)
        beyond = lambda found, slope: found - self._predicted(slope, noise, found.dtype)
        residual = self._pairs.gradients(
            theta, (beyond(old, old_slope), seen), (beyond(new, new_slope), noise)
        )
        contributions = jtu.tree_map(
            lambda g, p, q: g + self._expected(p + q), residual, old_slope, new_slope
        )
        meta_gradient = summarise(contributions, values, are_finite(particles.carry))
        return meta_gradient, PESState(particles, carry_on(seen, noise, window, particles))

    def _slopes(
        self, unroll: AbstractUnroll, theta: PyTree, particles: Particles, keys: Array
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        """Each member's gradient at `theta`, of its old and of its fresh episodes."""
        particles = lax.stop_gradient(particles)
        members = same_members(theta, self.pairs, 2)
        arrays, rest = eqx.partition(members, eqx.is_inexact_array)

        def total(old: PyTree[Array], fresh: PyTree[Array]) -> Float[Array, ""]:
            old, fresh = eqx.combine(old, rest), eqx.combine(fresh, rest)
            settings = particles, self.length, self.window, keys, fresh
            _, window = advance(unroll, old, *settings, scan=self.remat.scan)
            values = window.values(self.objective, window.losses)
            return jnp.sum(jnp.mean(values, axis=0))

        return jax.grad(total, argnums=(0, 1))(arrays, arrays)

    def _predicted(
        self, slopes: PyTree[Array], noise: PyTree[Array], dtype: Any
    ) -> Float[Array, " particles"]:
        """What the noise does to the difference of a pair, in first order.

        In the losses' dtype, which may be another than that of theta.
        """
        plus, minus = self.sampling.signs

        def leaf(p: Array, e: Array) -> Array:
            moved = (plus * p[:, 0] - minus * p[:, 1]) * e
            return jnp.sum(moved.reshape(len(moved), -1), axis=1).astype(dtype)

        return ft.reduce(jnp.add, jtu.tree_leaves(jtu.tree_map(leaf, slopes, noise)))

    def _expected(self, slope: Array) -> Array:
        """The mean of that prediction's share in the gradient."""
        plus, minus = self.sampling.signs
        return (plus * slope[:, 0] - minus * slope[:, 1]) / (plus - minus)
