"""Forward-mode differentiation, whose memory does not grow with the unroll."""

import abc
import functools as ft
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._devices import shard_particles
from .._kinds import as_int, check_count
from .._unrolls import (
    AbstractEpisodeLength,
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
from ._particles import are_finite, learned, over, same_members, summarise
from ._rollout import advance, particle_keys, Particles, start


class AbstractDirections(eqx.Module):
    """The directions in which an episode is differentiated."""

    @abc.abstractmethod
    def draw(
        self, theta: PyTree[Array], *, key: PRNGKeyArray
    ) -> PyTree[Float[Array, "directions ..."]]:
        """Directions $v_j$ with $E[\\sum_j v_j v_j^\\top] = I$, on a leading axis."""


class AllDirections(AbstractDirections):
    """Every coordinate: the exact gradient, at the cost of a tangent for each number.

    $v_j = e_j$, for each number of `theta`.
    """

    def draw(
        self, theta: PyTree[Array], *, key: PRNGKeyArray
    ) -> PyTree[Float[Array, "directions ..."]]:
        flat, unravel = ravel_pytree(theta)
        return jax.vmap(unravel)(jnp.eye(len(flat), dtype=flat.dtype))


class RandomDirections(AbstractDirections):
    """Random directions of signs: unbiased, for many meta-parameters.

    $v_j = r_j / \\sqrt n$, with $r_j$ of independent random signs and $n$ = `number`.

    **Attributes:**

    - `number`: of directions, each at the cost of a tangent.

    **Raises:**

    `ValueError` if `number` is below 1.
    """

    number: int = eqx.field(default=1, converter=as_int, static=True)

    def __check_init__(self):
        check_count(self.number, "number")

    def draw(
        self, theta: PyTree[Array], *, key: PRNGKeyArray
    ) -> PyTree[Float[Array, "directions ..."]]:
        flat, unravel = ravel_pytree(theta)
        signs = jr.rademacher(key, (self.number, len(flat)), flat.dtype)
        return jax.vmap(unravel)(signs / jnp.sqrt(float(self.number)).astype(flat.dtype))


class _ForwardState(eqx.Module):
    """Particles with their tangents, and the directions of each one's episode."""

    particles: Particles
    directions: PyTree[Array]


class ForwardGradient(AbstractEstimator):
    """Forward-mode differentiation: tangents are carried from window to window.

    $$g = \\sum_j v_j \\, \\frac{1}{K} \\sum_t \\dot l_{t, j}, \\qquad
    \\dot l_{t, j} = \\frac{d l_t}{d \\theta} v_j$$

    Each episode carries the tangents of its state in its directions $v_j$, so nothing is
    truncated and memory does not grow with the episode. With
    [`equistar.AllDirections`][] the gradient is exact (real-time recurrent learning),
    for few meta-parameters; with [`equistar.RandomDirections`][] it is unbiased, with a
    variance that grows with the number of meta-parameters. Like all derivatives, it
    explodes if the unroll is chaotic.

    **Arguments:**

    - `window`, `particles`, `length`, `starts`, `objective`: as for
        [`equistar.TruncatedBackprop`][].
    - `directions`: `AllDirections()` or `RandomDirections(number)`.

    **Raises:** as [`equistar.TruncatedBackprop`][].

    ??? cite

        ```bibtex
        @article{williams1989learning,
            title={A Learning Algorithm for Continually Running Fully Recurrent Neural
                   Networks},
            author={Williams, Ronald J. and Zipser, David},
            journal={Neural Computation},
            year={1989},
        }
        @article{baydin2022gradients,
            title={Gradients without Backpropagation},
            author={Baydin, Atilim Gunes and Pearlmutter, Barak A. and Syme, Don and
                    Wood, Frank and Torr, Philip},
            year={2022},
            eprint={2202.08587},
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
    directions: AbstractDirections = AllDirections()

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
    ) -> _ForwardState:
        check_run(self, unroll, theta, key=key)
        # The second of two, as in `estimate`: estimates for a key rest on it. Directions
        # are drawn by the first window, in which an episode of every particle begins.
        _, start_key = jr.split(key)
        directions = self._nothing(theta, key)
        keys = particle_keys(start_key, self.particles)
        members = self._members(theta, directions)
        particles = start(_Dual(unroll), members, self.length, self.starts, keys)
        return _ForwardState(particles, directions)

    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: _ForwardState,
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, _ForwardState]:
        direction_key, data_key = jr.split(key)
        fresh = self._draw(theta, direction_key)
        fresh_members = self._members(theta, fresh)
        check_state(state, _ForwardState, fresh_members)
        after, window = advance(
            _Dual(unroll),
            self._members(theta, state.directions),
            state.particles,
            self.length,
            self.window,
            particle_keys(data_key, self.particles),
            fresh_members=fresh_members,
        )
        losses, slopes = window.losses
        values = lambda x: window.values(self.objective, x)
        push = lambda slope: jax.jvp(values, (losses,), (slope,))[1]
        slopes = jax.vmap(push, in_axes=-1, out_axes=-1)(slopes)
        old, new = window.split_mean(slopes[:, :, 0])

        def leaf(v: Array, f: Array) -> Array:
            dot = ft.partial(jnp.tensordot, axes=1, precision=lax.Precision.HIGHEST)
            weigh = jax.vmap(dot)
            return weigh(old.astype(v.dtype), v) + weigh(new.astype(v.dtype), f)

        gradients = jtu.tree_map(leaf, state.directions, fresh)
        began = window.fresh[-1]
        directions = jtu.tree_map(
            lambda v, f: jnp.where(over(began, v), f, v), state.directions, fresh
        )
        meta_gradient = summarise(gradients, values(losses), are_finite(after.carry[0]))
        return meta_gradient, _ForwardState(after, directions)

    def _draw(self, theta: PyTree, key: PRNGKeyArray) -> PyTree[Array]:
        draw = lambda k: self.directions.draw(learned(theta), key=k)
        return jax.vmap(draw)(particle_keys(key, self.particles))

    def _nothing(self, theta: PyTree, key: PRNGKeyArray) -> PyTree[Array]:
        """Directions of any particle before its first episode, as those of `_draw`."""
        shapes = jax.eval_shape(lambda k: self._draw(theta, k), key)
        zeros = jtu.tree_map(jnp.zeros_like, shapes)
        return shard_particles(zeros, self.particles)

    def _members(self, theta: PyTree, directions: PyTree[Array]) -> PyTree:
        one_member = jtu.tree_map(lambda v: v[:, None], directions)
        return same_members(theta, self.particles, 1), one_member


class _Dual(AbstractUnroll):
    """An unroll beside its tangents; `theta` is a pair of it and of directions.

    The carry is a pair of the unroll's and its tangents, with an axis of directions; the
    loss a pair of the loss and its derivative in each direction. Integers have no tangent.
    """

    unroll: AbstractUnroll

    def init(
        self, theta: tuple[PyTree, PyTree[Array]], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        theta, directions = theta
        arrays, rest = eqx.partition(theta, eqx.is_inexact_array)

        def push(v: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
            init = lambda a: _split(self.unroll.init(eqx.combine(a, rest), key=key))
            carry, tangent, exact = jax.jvp(init, (arrays,), (v,), has_aux=True)
            return eqx.combine(carry, exact), tangent

        return jax.vmap(push, out_axes=(None, 0))(directions)

    def step(
        self,
        theta: tuple[PyTree, PyTree[Array]],
        carry: tuple[PyTree[Array], PyTree[Array]],
        *,
        key: PRNGKeyArray,
    ) -> tuple[PyTree[Array], Any]:
        theta, directions = theta
        carry, tangents = carry
        arrays, rest = eqx.partition(theta, eqx.is_inexact_array)
        moving, exact = eqx.partition(carry, eqx.is_inexact_array)

        def run(a: PyTree[Array], c: PyTree[Array]):
            theta, carry = eqx.combine(a, rest), eqx.combine(c, exact)
            carry, loss = self.unroll.step(theta, carry, key=key)
            moving, exact_after = _split(carry)
            return (moving, loss), exact_after

        def push(v: PyTree[Array], c: PyTree[Array]):
            primals = arrays, moving
            (after, loss), (tangent, slope), exact_after = jax.jvp(
                run, primals, (v, c), has_aux=True
            )
            return (eqx.combine(after, exact_after), loss), (tangent, slope)

        primal, tangent = jax.vmap(push, out_axes=(None, 0))(directions, tangents)
        (carry, loss), (tangents, slopes) = primal, tangent
        return (carry, tangents), (loss, slopes)


def _split(carry: PyTree[Array]) -> tuple[PyTree[Array], PyTree[Array]]:
    return eqx.partition(carry, eqx.is_inexact_array)
