"""Back-propagation through an unroll, truncated or whole."""

from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._kinds import as_int, check_count
from .._unrolls import (
    AbstractEpisodeLength,
    AbstractObjective,
    AbstractStarts,
    AbstractStepObjective,
    AbstractUnroll,
    as_length,
    ConstantLength,
    MeanLoss,
    settled,
    Staggered,
)
from ._base import AbstractEstimator, MetaGradient
from ._checks import check_state, check_windowed
from ._own_parts import check_run
from ._particles import are_finite, same_members, summarise
from ._remat import AbstractRematerialisation, WithinMemory
from ._rollout import (
    advance,
    particle_keys,
    Particles,
    start,
    whole_episodes,
)
from ._whole import AbstractWhole


class TruncatedBackprop(AbstractEstimator):
    """Reverse-mode differentiation through windows; gradients stop at a window's start.

    $$g = \\nabla_\\theta \\frac{1}{K} \\sum_t l_t(\\theta)$$

    with the state at the window's start held constant. It is biased, because it ignores
    what $\\theta$ did before the window. If the unroll is chaotic, its variance grows with
    the window.

    **Arguments:**

    - `window`: $K$, steps that are differentiated through.
    - `particles`: episodes that run in parallel.
    - `length`: of the episodes, in steps; a number, or lengths to draw from.
    - `starts`: `Staggered()`, or `LockStep()`.
    - `objective`: the function of the losses to minimise; a sum over steps.
    - `remat`: which steps are computed again instead of stored: `EveryStep()`;
        `Segments()`, which needs the least memory; `WithinMemory()`, the default, which is
        the former if that fits into memory and else the latter; or
        `NoRematerialisation()`.

    **Raises:**

    `ValueError` if an argument is not of its kind, `window` or `particles` is below 1, or
    `objective` needs whole episodes.

    ??? cite

        ```bibtex
        @article{werbos1990backpropagation,
            title={Backpropagation Through Time: What It Does and How to Do It},
            author={Werbos, Paul J.},
            journal={Proceedings of the IEEE},
            year={1990},
        }
        ```
    """

    window: int = eqx.field(default=50, converter=as_int, static=True)
    particles: int = eqx.field(default=8, converter=as_int, static=True)
    length: AbstractEpisodeLength = eqx.field(
        default=ConstantLength(2000), converter=as_length
    )
    starts: AbstractStarts = Staggered()
    objective: AbstractStepObjective = MeanLoss()
    remat: AbstractRematerialisation = WithinMemory()

    def __check_init__(self):
        check_windowed(self.window, self.objective)
        check_count(self.particles, "particles")

    @property
    def steps(self) -> int:
        return self.window

    @property
    def warm_up(self) -> int:
        return settled(self.length)

    def init(
        self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
    ) -> Particles:
        check_run(self, unroll, theta, key=key)
        keys = particle_keys(key, self.particles)
        members = same_members(theta, self.particles, 1)
        return start(unroll, members, self.length, self.starts, keys)

    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: Particles,
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, Particles]:
        members = same_members(theta, self.particles, 1)
        check_state(state, Particles, members)
        state = lax.stop_gradient(state)
        keys = particle_keys(key, self.particles)

        def total(members: PyTree, rest: PyTree) -> tuple[Array, Any]:
            members = eqx.combine(members, rest)
            settings = self.length, self.window, keys
            after, window = advance(unroll, members, state, *settings, scan=self.remat.scan)
            values = window.values(self.objective, window.losses)
            return jnp.sum(jnp.mean(values, axis=0)), (values, after)

        gradients, (values, after) = back_propagate(total, members)
        return summarise(gradients, values, are_finite(after.carry)), after


class FullBackprop(AbstractWhole):
    """Reverse-mode differentiation through whole, fresh episodes: the exact gradient.

    $$g = \\nabla_\\theta L(\\theta), \\qquad
    L = \\frac{1}{T} \\sum_t l_t(\\theta)$$

    or any other objective. Unbiased, without any smoothing.

    **Arguments:**

    - `length`: $T$, steps of an episode; a number, or lengths to draw from.
    - `particles`: episodes that run in parallel.
    - `objective`: any [`equistar.AbstractObjective`][].
    - `remat`: as for [`equistar.TruncatedBackprop`][].

    **Raises:**

    `ValueError` if an argument is not of its kind, or `particles` is below 1.

    ??? cite

        ```bibtex
        @inproceedings{maclaurin2015gradient,
            title={Gradient-based Hyperparameter Optimization through Reversible Learning},
            author={Maclaurin, Dougal and Duvenaud, David and Adams, Ryan P.},
            booktitle={International Conference on Machine Learning},
            year={2015},
            eprint={1502.03492},
        }
        ```
    """

    length: AbstractEpisodeLength = eqx.field(converter=as_length)
    particles: int = eqx.field(default=8, converter=as_int, static=True)
    objective: AbstractObjective = MeanLoss()
    remat: AbstractRematerialisation = WithinMemory()

    def __check_init__(self):
        check_count(self.particles, "particles")

    def _of_episodes(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        meta_step: Int[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> MetaGradient:
        keys = particle_keys(key, self.particles)

        def total(members: PyTree, rest: PyTree) -> tuple[Array, Any]:
            settings = self.length, self.objective, meta_step, keys, self.remat.scan
            members = eqx.combine(members, rest)
            values, healthy = whole_episodes(unroll, members, *settings)
            return jnp.sum(values), (values, healthy)

        members = same_members(theta, self.particles, 1)
        gradients, (values, healthy) = back_propagate(total, members)
        return summarise(gradients, values, healthy)


# One theta for each particle, so that one whose gradient is not finite is dropped alone.
def back_propagate(total: Any, members: PyTree) -> tuple[PyTree[Array], Any]:
    """The gradient with respect to each particle's one member, and what `total` adds."""
    arrays, rest = eqx.partition(members, eqx.is_inexact_array)
    gradients, more = jax.grad(total, has_aux=True)(arrays, rest)
    return jtu.tree_map(lambda g: g[:, 0], gradients), more
