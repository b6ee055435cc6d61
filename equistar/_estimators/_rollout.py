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

from .._devices import shard_particles
from .._numerics import all_finite
from .._unrolls import (
    AbstractEpisodeLength,
    AbstractObjective,
    AbstractStarts,
    AbstractUnroll,
    draw_length,
    expected_length,
    LockStep,
)
from ._window import widened, Window


class Particles(eqx.Module):
    """Where each particle is in its episode.

    **Attributes:**

    - `carry`: of the unroll, with leading axes of particles and members.
    - `step`: steps that a particle has made in its episode; -1 before the first begins.
    - `length`: of its episode, in steps.
    - `meta_step`: the number of windows so far.
    """

    carry: PyTree[Array]
    step: Int[Array, " particles"]
    length: Int[Array, " particles"]
    meta_step: Int[Array, ""]


def particle_keys(key: PRNGKeyArray, n: int) -> Array:
    """A key for each of `n` particles, by its index."""
    keys = jax.vmap(lambda i: jr.fold_in(key, i))(jnp.arange(n))
    return shard_particles(keys, n)


def start(
    unroll: AbstractUnroll,
    members: PyTree,
    length: AbstractEpisodeLength,
    starts: AbstractStarts,
    keys: Array,
) -> Particles:
    """Particles before their first episode; the carry is there for its shape.

    **Arguments:**

    - `members`: `theta` with leading axes of particles and members.
    - `keys`: a key for each particle.
    """
    meta_step = jnp.zeros((), jnp.int32)

    def first(key: PRNGKeyArray) -> tuple[PRNGKeyArray, Int[Array, ""]]:
        init_key, length_key, phase_key = jr.split(key, 3)
        drawn = draw_length(length, meta_step, key=length_key)
        return init_key, starts.first_length(drawn, key=phase_key)

    init_keys, lengths = jax.vmap(first)(keys)
    carry = _init(unroll, members, init_keys)
    # All of them, as after a window, or the next one compiles again.
    particles = Particles(carry, jnp.full_like(lengths, -1), lengths, meta_step)
    return shard_particles(particles, len(keys))


def whole_episodes(
    unroll: AbstractUnroll,
    members: PyTree,
    length: AbstractEpisodeLength,
    objective: AbstractObjective,
    meta_step: Int[Array, ""],
    keys: Array,
    scan: Callable[..., tuple[PyTree, PyTree]] = lax.scan,
) -> tuple[Float[Array, "particles members"], Bool[Array, "particles members"]]:
    """The objective of a fresh episode of each member, and whether it ended finite.

    A particle whose episode is shorter than the longest one goes on with another, of
    which nothing is recorded.
    """
    unroll = _Watched(unroll)
    # A first episode that is already over makes `advance` start the real one.
    blank = start(unroll, members, length, LockStep(), jr.clone(keys))
    ended = Particles(blank.carry, blank.length, blank.length, meta_step)
    # A derivative of what follows an episode may overflow, and zero times that is NaN.
    others = lax.stop_gradient(eqx.filter(members, eqx.is_inexact_array))
    others = eqx.combine(others, members)
    window = length.maximum, keys, others, 1
    _, window = advance(unroll, members, ended, length, *window, scan=scan)
    (losses, finite), lengths = window.losses, window.length[0]
    of_members = jax.vmap(objective.episode, in_axes=(1, None, None))
    of_particles = jax.vmap(of_members, in_axes=(1, 0, 0))
    values = of_particles(losses, lengths, window.mean_length[0])
    at_end = jax.vmap(lambda finite, n: finite[n - 1], in_axes=(1, 0))
    return values, at_end(finite, lengths)


class _Watched(AbstractUnroll):
    """An unroll whose steps say also whether the carry after them is finite."""

    unroll: AbstractUnroll

    def init(self, theta: PyTree, *, key: PRNGKeyArray) -> PyTree[Array]:
        return self.unroll.init(theta, key=key)

    def step(
        self, theta: PyTree, carry: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], Any]:
        carry, losses = self.unroll.step(theta, carry, key=key)
        return carry, (losses, all_finite(carry))


def advance(
    unroll: AbstractUnroll,
    members: PyTree,
    particles: Particles,
    length: AbstractEpisodeLength,
    window: int,
    keys: Array,
    fresh_members: PyTree | None = None,
    own: int = 0,
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
    - `own`: how many of a particle's episodes that begin inside the window are not fresh.
    - `scan`: `lax.scan`, or one that rematerialises.
    """
    keys = jax.vmap(lambda k: jr.split(k, window), out_axes=1)(keys)
    restarts, step, lengths, mean_lengths = _schedule(particles, length, keys)
    fresh = jnp.cumsum(restarts, axis=0) > own
    one_theta = fresh_members is None
    fresh_members = members if one_theta else fresh_members

    def body(
        carry: PyTree[Array], x: tuple[Array, Array, Array]
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        restart, began, key = x
        init_keys, step_keys = _keys_for(key, "init"), _keys_for(key, "step")
        theta = members if one_theta else _choose(began, fresh_members, members)
        init = eqx.filter_closure_convert(lambda: _init(unroll, theta, init_keys))
        carry = _restart(init, restart, carry)
        return _step(unroll, theta, carry, step_keys)

    carry, losses = scan(body, particles.carry, (restarts, fresh, keys))
    carry = shard_particles(carry, len(restarts[0]))
    recorded = Window(widened(losses), fresh, step, lengths, mean_lengths)
    after = Particles(carry, step[-1] + 1, lengths[-1], particles.meta_step + 1)
    return after, recorded


# When episodes restart follows from integers alone, so it is worked out ahead: for each
# step of each particle whether an episode begins, its number in the episode, the length,
# and the length that was expected.
def _schedule(
    particles: Particles, length: AbstractEpisodeLength, keys: Array
) -> tuple[Array, Array, Array, Array]:
    now = particles.meta_step
    draw = jax.vmap(lambda k: draw_length(length, now, key=k))
    windows = -(-jnp.maximum(particles.step, 0) // len(keys))
    mean = lambda meta_step: expected_length(length, meta_step)
    expected = jax.vmap(mean)(jnp.maximum(now - windows, 0))

    def body(clock: tuple[Array, Array, Array], key: Array):
        done, old, expected = clock
        ended = done >= old
        restart = ended | (done < 0)
        step = jnp.where(restart, 0, done)
        new = jnp.where(ended, draw(_keys_for(key, "length")), old)
        expected = jnp.where(ended, mean(now), expected)
        return (step + 1, new, expected), (restart, step, new, expected)

    return lax.scan(body, (particles.step, particles.length, expected), keys)[1]


_PURPOSES = {"step": 0, "init": 1, "length": 2}


def _keys_for(keys: Array, purpose: str) -> Array:
    return jax.vmap(lambda k: jr.fold_in(k, _PURPOSES[purpose]))(keys)


# The slopes of what came before go around the branches, which would copy them all.
@eqx.filter_custom_jvp
def _restart(init: Any, restart: Bool[Array, " particles"], carry: PyTree) -> PyTree:
    return _where_begun(init, restart, carry)


@_restart.def_jvp
def _restart_jvp(
    primals: tuple[Any, Array, PyTree], tangents: tuple[Any, None, PyTree]
) -> tuple[PyTree, PyTree]:
    (init, restart, carry), (of_init, _, of_carry) = primals, tangents
    begin = lambda init: _where_begun(init, restart, carry)
    begun, of_begun = eqx.filter_jvp(begin, (init,), (of_init,))
    of_others = _where(restart, jtu.tree_map(jnp.zeros_like, of_carry), of_carry)
    slopes = jtu.tree_map(_sum, of_begun, of_others, is_leaf=lambda x: x is None)
    return begun, slopes


# Of slopes, which are None where there is none.
def _sum(x: Array | None, y: Array | None) -> Array | None:
    return y if x is None else x if y is None else x + y


# Initialisation is paid only at steps where some particle restarts.
def _where_begun(init: Any, restart: Bool[Array, " particles"], carry: PyTree) -> PyTree:
    begin = lambda carry: _where(restart, init(), carry)
    return lax.cond(jnp.any(restart), begin, lambda carry: carry, carry)


# Of `theta` only what is differentiated has axes of particles and members.
_MEMBERS = lambda x: 0 if eqx.is_inexact_array(x) else None


def _init(unroll: AbstractUnroll, members: PyTree, keys: Array) -> PyTree[Array]:
    one = lambda theta, key: unroll.init(theta, key=key)
    of_members = eqx.filter_vmap(one, in_axes=(_MEMBERS, None))
    return eqx.filter_vmap(of_members, in_axes=(_MEMBERS, 0))(members, keys)


def _step(
    unroll: AbstractUnroll, members: PyTree, carry: PyTree[Array], keys: Array
) -> tuple[PyTree[Array], PyTree[Array]]:
    one = lambda theta, c, key: unroll.step(theta, c, key=key)
    of_members = eqx.filter_vmap(one, in_axes=(_MEMBERS, eqx.if_array(0), None))
    of_particles = eqx.filter_vmap(of_members, in_axes=(_MEMBERS, eqx.if_array(0), 0))
    return of_particles(members, carry, keys)


def _choose(began: Bool[Array, " particles"], new: PyTree, old: PyTree) -> PyTree:
    moved, rest = eqx.partition(new, eqx.is_inexact_array)
    return eqx.combine(_where(began, moved, eqx.filter(old, eqx.is_inexact_array)), rest)


def _where(restart: Bool[Array, " particles"], new: PyTree, old: PyTree) -> PyTree:
    def select(a: Any, b: Any) -> Any:
        if not eqx.is_array(a):
            return a
        return jnp.where(restart.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jtu.tree_map(select, new, old)
