"""Back-propagation through an unroll, truncated or whole."""

import functools as ft

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._episodes import (
    AbstractEpisodeLength,
    AbstractStarts,
    ConstantLength,
    LockStep,
    Staggered,
)
from .._unroll import AbstractUnroll
from ._antithetic import learned, same_members, summarise
from ._base import AbstractEstimator, MetaGradient
from ._rollout import advance, particle_keys, Particles, start, Window


class TruncatedBackprop(AbstractEstimator):
    """Reverse-mode differentiation through windows; gradients stop at a window's start.

    $$g = \\nabla_\\theta \\frac{1}{K} \\sum_t l_t(\\theta)$$

    with the state at the window's start held constant. Biased, since it ignores what
    $\\theta$ did before the window, and of a variance that grows with the window where
    the unroll is chaotic. Steps are rematerialised: memory grows with the square root of
    the window, not with the window times a step's intermediates.

    ??? cite "Reference"

        ```bibtex
        @article{werbos1990backpropagation,
            title={Backpropagation Through Time: What It Does and How to Do It},
            author={Werbos, Paul J.},
            journal={Proceedings of the IEEE},
            year={1990},
        }
        ```
    """

    length: AbstractEpisodeLength
    starts: AbstractStarts
    window: int = eqx.field(static=True)
    particles: int = eqx.field(static=True)

    def __init__(
        self,
        window: int = 50,
        particles: int = 8,
        length: AbstractEpisodeLength = ConstantLength(2000),
        starts: AbstractStarts = Staggered(),
    ):
        """**Arguments:**

        - `window`: $K$, steps that are differentiated through.
        - `particles`: episodes that run beside each other.
        - `length`: the episodes' length.
        - `starts`: `Staggered()`, or `LockStep()`.
        """
        _check(window, particles)
        self.window = window
        self.particles = particles
        self.length = length
        self.starts = starts

    def init(
        self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
    ) -> Particles:
        learned(theta)
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
        keys = particle_keys(key, self.particles)
        return _differentiate(unroll, theta, state, self.length, self.window, keys)


class FullBackprop(AbstractEstimator):
    """Reverse-mode differentiation through whole, fresh episodes: the exact gradient.

    $$g = \\nabla_\\theta \\frac{1}{T} \\sum_t l_t(\\theta)$$

    Unbiased for the gradient of the mean loss, without any smoothing. Steps are
    rematerialised, as in [`equistar.TruncatedBackprop`][].
    """

    length: int = eqx.field(static=True)
    particles: int = eqx.field(static=True)

    def __init__(self, length: int, particles: int = 8):
        """**Arguments:**

        - `length`: steps of an episode.
        - `particles`: episodes that run beside each other.
        """
        _check(length, particles)
        self.length = length
        self.particles = particles

    def init(self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray) -> None:
        return None

    def estimate(
        self, unroll: AbstractUnroll, theta: PyTree, state: None, *, key: PRNGKeyArray
    ) -> tuple[MetaGradient, None]:
        learned(theta)
        length = ConstantLength(self.length)
        keys = particle_keys(key, self.particles)
        members = same_members(theta, self.particles, 1)
        blank = start(unroll, members, length, LockStep(), keys)
        # A first episode that is already over makes `advance` start the real one.
        blank = eqx.tree_at(lambda p: p.step, blank, blank.length)
        out, _ = _differentiate(unroll, theta, blank, length, self.length, keys)
        return out, None


def _check(window: int, particles: int) -> None:
    if window < 1 or particles < 1:
        raise ValueError(
            "The number of steps and `particles` must be at least 1; got "
            f"{window} and {particles}."
        )


def _differentiate(
    unroll: AbstractUnroll,
    theta: PyTree,
    particles: Particles,
    length: AbstractEpisodeLength,
    window: int,
    keys: Array,
) -> tuple[MetaGradient, Particles]:
    n = len(keys)
    arrays, rest = eqx.partition(theta, eqx.is_inexact_array)
    particles = lax.stop_gradient(particles)
    scan = ft.partial(eqxi.scan, kind="checkpointed", checkpoints=None)

    # One theta for each particle, so that one whose gradient is not finite is dropped.
    def total(spread: PyTree) -> tuple[Array, tuple[Particles, Window]]:
        members = eqx.combine(spread, rest)
        advanced, recorded = advance(
            unroll, members, particles, length, window, keys, scan=scan
        )
        return jnp.sum(jnp.mean(recorded.losses, axis=0)), (advanced, recorded)

    spread = jtu.tree_map(lambda x: jnp.broadcast_to(x, (n, 1, *x.shape)), arrays)
    gradients, (advanced, recorded) = jax.grad(total, has_aux=True)(spread)
    contributions = jtu.tree_map(lambda g: g[:, 0], gradients)
    return summarise(contributions, recorded, advanced.carry), advanced
