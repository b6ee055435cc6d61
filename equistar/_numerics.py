"""Numerical helpers that several layers need."""

import functools as ft
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree


_BLOCK = 128
_STRETCH = 64
_SMALL = 8192
_SHARES = 8


def accumulator_dtype(dtype: np.dtype | type) -> np.dtype:
    """float32, or `dtype` itself where that is wider."""
    # Not `jnp.promote_types`: the tests run under strict promotion, which refuses it.
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def after(x: Float[Array, "*shape"], first: PyTree[Array]) -> Float[Array, "*shape"]:
    """`x`, which to the compiler depends on every floating-point number of `first`."""
    leaves = [y for y in jtu.tree_leaves(first) if jnp.issubdtype(y.dtype, jnp.floating)]
    return x + _zero([y for y in leaves if y.ndim == 0]).astype(x.dtype)


@jax.jit
def together(tree: PyTree[Float[Array, "..."]]) -> PyTree[Float[Array, "..."]]:
    """`tree`, of which to the compiler each array depends on all.

    What needs one of them comes after what makes any. So XLA, which merges collectives as
    it meets them, meets side by side those that come before, and those that come after.
    """
    zero = _zero(jtu.tree_leaves(tree))
    return jtu.tree_map(lambda x: x + zero.astype(x.dtype), tree)


# Zero: the second lowest bit of a number of one bit. Of 0 * x fast-math makes 0.
def _zero(xs: Sequence[Float[Array, "..."]]) -> Int[Array, ""]:
    numbers = [lax.stop_gradient(x).astype(jnp.float32).view(jnp.int32) for x in xs]
    zeros = [jnp.sum((number & 1) >> 1, dtype=jnp.int32) for number in numbers]
    return sum(zeros, jnp.zeros((), jnp.int32))


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point array of `tree` is finite."""
    leaves = [
        jnp.all(jnp.isfinite(x))
        for x in jtu.tree_leaves(tree)
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    return ft.reduce(jnp.logical_and, leaves, jnp.array(True))


def count_learned(tree: PyTree) -> int:
    """How many numbers of a pytree are meta-learned: those of its inexact arrays."""
    return sum(x.size for x in jtu.tree_leaves(eqx.filter(tree, eqx.is_inexact_array)))


def means(xs: Sequence[Float[Array, "*shape"]]) -> Float[Array, " arrays"]:
    """The mean of each of several arrays of one shape.

    One pass over memory for all of them: a multi-operand reduction over blocks, then a
    second small sum, which also keeps float32 accurate on large tensors.
    """
    return _means(*xs) if xs else jnp.zeros(0)


@jax.custom_jvp
def _means(*xs: Array) -> Float[Array, " arrays"]:
    shape, within = _blocks(xs[0].shape)
    zeros = tuple(jnp.zeros((), x.dtype) for x in xs)
    add = lambda a, b: tuple(i + j for i, j in zip(a, b, strict=True))
    partial = lax.reduce(tuple(x.reshape(shape) for x in xs), zeros, add, within)
    sums = jnp.sum(jnp.stack(partial), range(1, 1 + len(shape) - len(within)))
    return sums / max(1, xs[0].size)


# Each axis of `shape` as blocks and what is within a block, and the axes within. Up to
# `_SHARES` devices along an axis have whole blocks each where its length allows: XLA
# gathers the parts of a multi-operand reduction across devices one by one, but sums all
# arrays of the second sum, of all tensors, in one go. A block of a tensor that is not small
# is stretches of memory of `_STRETCH` elements or more: shorter ones are far slower.
def _blocks(shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    stretch = _STRETCH if math.prod(shape) > _SMALL else 1
    split, size = [], 1
    for n in reversed(shape):
        within = _within(n, size, stretch)
        split.append((n // max(1, within), within))
        size *= within
    flat = tuple(n for pair in reversed(split) for n in pair)
    return flat, tuple(range(1, len(flat), 2))


# How many entries of an axis of `n`, each of `size` elements, go into a block.
def _within(n: int, size: int, stretch: int) -> int:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    enough = [d for s in small for d in (s, n // s) if size * d >= stretch]
    cost = lambda d: (-math.gcd(n // d, _SHARES), abs(size * d - _BLOCK))
    return min(enough, key=cost, default=n)


# JAX has no reverse-mode rule for a multi-operand reduction, and its forward-mode rule
# takes minutes to compile; but the function is linear.
@_means.defjvp
def _means_jvp(
    primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    return _means(*primals), jnp.stack([jnp.mean(dx) for dx in tangents])


def unstack(x: Float[Array, "arrays ..."]) -> list[Float[Array, "..."]]:
    """The arrays stacked on the first axis. Its derivative is one concatenation."""
    return [lax.squeeze(part, (0,)) for part in lax.split(x, (1,) * len(x))]
