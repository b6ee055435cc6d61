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
from jaxtyping import Array, Bool, Float, PyTree


# Below this many elements a partial sum is not worth a row of its own.
_MINOR_WIDTH = 128


def accumulator_dtype(dtype: np.dtype | type) -> np.dtype:
    """float32, or `dtype` itself where that is wider."""
    # Not `jnp.promote_types`: the tests run under strict promotion, which refuses it.
    dtype = jnp.dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


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

    One pass over memory for all of them: a multi-operand reduction over the minor axes,
    then a second tiny sum, which also keeps float32 accurate on large tensors.
    """
    return _means(*xs) if xs else jnp.zeros(0)


@jax.custom_jvp
def _means(*xs: Array) -> Float[Array, " arrays"]:
    shape = xs[0].shape
    axis = len(shape)
    while axis > 0 and (axis == len(shape) or math.prod(shape[axis:]) < _MINOR_WIDTH):
        axis -= 1
    zeros = tuple(jnp.zeros((), x.dtype) for x in xs)
    add = lambda a, b: tuple(i + j for i, j in zip(a, b, strict=True))
    partial = lax.reduce(xs, zeros, add, tuple(range(axis, len(shape))))
    return jnp.sum(jnp.stack(partial), range(1, axis + 1)) / max(1, math.prod(shape))


# JAX has no reverse-mode rule for a multi-operand reduction, and its forward-mode rule
# takes minutes to compile; but the function is linear.
@_means.defjvp
def _means_jvp(
    primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    return _means(*primals), jnp.stack([jnp.mean(dx) for dx in tangents])


def unstack(x: Float[Array, "n ..."]) -> list[Float[Array, "..."]]:
    """The arrays stacked on the first axis. Its derivative is one concatenation."""
    return [lax.squeeze(part, (0,)) for part in lax.split(x, (1,) * len(x))]
