"""The one estimator loop: particles run through a window of an unroll.

A particle is one stream of episodes. It has members that differ in `theta` only: the two
of an antithetic pair start from the same initialisation, and see the same data and keys.
Everything of particle i is keyed by `fold_in(key, i)`, so results do not depend on how
particles are spread over devices.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from .._episodes import AbstractEpisodeLength, AbstractStarts
from .._unroll import AbstractUnroll


class Particles(eqx.Module):
    """Where each particle is in its episode. Leading axes: particles, members."""

    carry: PyTree[Array]
    step: Int[Array, " particles"]
    length: Int[Array, " particles"]


class Window(eqx.Module):
    """What particles recorded in a window.

    `fresh[t, i]` tells whether step t of particle i belongs to an episode that began
    inside the window.
    """

    losses: Float[Array, "steps particles members"]
    fresh: Bool[Array, "steps particles"]


def particle_keys(key: PRNGKeyArray, n: int) -> Array:
    """A key for each of `n` particles, by its index."""
    return jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(n))


def start(
    unroll: AbstractUnroll,
    members: PyTree,
    length: AbstractEpisodeLength,
    starts: AbstractStarts,
    keys: Array,
) -> Particles:
    """Particles at the start of their first episode.

    **Arguments:**

    - `members`: `theta` with leading axes of particles and members.
    - `keys`: a key for each particle.
    """

    def first(key: PRNGKeyArray) -> tuple[PRNGKeyArray, Int[Array, ""]]:
        init_key, length_key, phase_key = jr.split(key, 3)
        return init_key, starts.first_length(length.draw(key=length_key), key=phase_key)

    init_keys, lengths = jax.vmap(first)(keys)
    carry = _init(unroll, members, init_keys)
    return Particles(carry, jnp.zeros_like(lengths), lengths)


def advance(
    unroll: AbstractUnroll,
    members: PyTree,
    particles: Particles,
    length: AbstractEpisodeLength,
    window: int,
    keys: Array,
    fresh_members: PyTree | None = None,
    scan: Callable[..., tuple[PyTree, PyTree]] = lax.scan,
) -> tuple[Particles, Window]:
    """Runs every particle through `window` steps, restarting episodes that are done.

    An episode whose last step was the window's last restarts in the next window.

    **Arguments:**

    - `members`: `theta` with leading axes of particles and members.
    - `particles`: where each particle is.
    - `length`: draws the length of an episode that begins.
    - `keys`: a key for each particle.
    - `fresh_members`: `theta` for episodes that begin inside the window; by default
        `members`.
    - `scan`: `lax.scan`, or one that rematerialises.
    """
    keys = jax.vmap(lambda k: jr.split(k, window), out_axes=1)(keys)
    restarts, step, lengths = _schedule(particles, length, keys)
    fresh = jnp.cumsum(restarts, axis=0) > 0
    one_theta = fresh_members is None
    fresh_members = members if one_theta else fresh_members

    def body(
        carry: PyTree[Array], x: tuple[Array, Array, Array]
    ) -> tuple[PyTree[Array], Float[Array, "particles members"]]:
        restart, began, key = x
        init_keys, step_keys = _split(key, "init"), _split(key, "step")
        # Initialisation is paid only at steps where some particle restarts.
        carry = lax.cond(
            jnp.any(restart),
            lambda c: _where(restart, _init(unroll, fresh_members, init_keys), c),
            lambda c: c,
            carry,
        )
        theta = members if one_theta else _where(began, fresh_members, members)
        return _step(unroll, theta, carry, step_keys)

    carry, losses = scan(body, particles.carry, (restarts, fresh, keys))
    return Particles(carry, step, lengths), Window(losses, fresh)


# When episodes restart follows from integers alone, so it is worked out ahead.
def _schedule(
    particles: Particles, length: AbstractEpisodeLength, keys: Array
) -> tuple[Bool[Array, "steps particles"], Array, Array]:
    def body(clock: tuple[Array, Array], key: Array):
        step, old = clock
        restart = step >= old
        drawn = jax.vmap(lambda k: length.draw(key=k))(_split(key, "length"))
        new = jnp.where(restart, drawn, old)
        return (jnp.where(restart, 0, step) + 1, new), restart

    clock = particles.step, particles.length
    (step, lengths), restarts = lax.scan(body, clock, keys)
    return restarts, step, lengths


_PURPOSES = {"step": 0, "init": 1, "length": 2}


def _split(keys: Array, purpose: str) -> Array:
    return jax.vmap(lambda k: jr.fold_in(k, _PURPOSES[purpose]))(keys)


def _init(unroll: AbstractUnroll, members: PyTree, keys: Array) -> PyTree[Array]:
    one = lambda theta, key: unroll.init(theta, key=key)
    return eqx.filter_vmap(eqx.filter_vmap(one, in_axes=(eqx.if_array(0), None)))(
        members, keys
    )


def _step(
    unroll: AbstractUnroll, members: PyTree, carry: PyTree[Array], keys: Array
) -> tuple[PyTree[Array], Float[Array, "particles members"]]:
    one = lambda theta, c, key: unroll.step(theta, c, key=key)
    axes = (eqx.if_array(0), eqx.if_array(0), None)
    return eqx.filter_vmap(eqx.filter_vmap(one, in_axes=axes))(members, carry, keys)


def _where(
    restart: Bool[Array, " particles"], new: PyTree[Array], old: PyTree[Array]
) -> PyTree[Array]:
    def select(a: Any, b: Any) -> Any:
        if not eqx.is_array(a):
            return a
        return jnp.where(restart.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jtu.tree_map(select, new, old)
