"""Arithmetic that several layers need."""

import functools as ft
import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.core
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree


# By default products of float32 are of TF32 on a GPU, and of bfloat16 on a TPU.
matmul = ft.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def accumulator_dtype(dtype: np.dtype | type) -> np.dtype:
    """float32, or `dtype` itself where that is wider."""
    # Not `jnp.promote_types`: the tests run under strict promotion, which refuses it.
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    return dtype if dtype.itemsize >= 4 else jnp.dtype(jnp.float32)


def all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every floating-point array of `tree` is finite."""
    # Not Equinox's inexact arrays, among which NumPy's of bfloat16 are not.
    leaves = [
        jnp.all(jnp.isfinite(x))
        for x in jtu.tree_leaves(eqx.filter(tree, eqx.is_array))
        if jnp.issubdtype(x.dtype, jnp.inexact)
    ]
    return ft.reduce(jnp.logical_and, leaves, jnp.array(True))


def tree_norm(tree: PyTree[Array], dtype: np.dtype | type) -> Float[Array, ""]:
    """The Euclidean norm of all arrays, whose squares may overflow or vanish."""
    largest, (norm,) = relative_norms([tree], dtype)
    return largest * norm


def relative_norms(
    trees: Sequence[PyTree[Array]], dtype: np.dtype | type
) -> tuple[Float[Array, ""], list[Float[Array, ""]]]:
    """The largest absolute number of all trees, and their norms in units of it."""
    leaves = [[x.astype(dtype) for x in jtu.tree_leaves(tree)] for tree in trees]
    sizes = [jnp.max(jnp.abs(x), initial=0) for xs in leaves for x in xs]
    largest = ft.reduce(jnp.maximum, sizes, jnp.zeros((), dtype))
    # XLA divides by way of the reciprocal, which vanishes for the very largest numbers.
    shrink = jnp.where(largest > 1, 1 / 16, 1).astype(dtype)
    unit = jnp.where(largest > 0, largest * shrink, 1)
    square = lambda x: jnp.sum((x * shrink / unit) ** 2)
    zero = jnp.zeros((), dtype)
    return largest, [jnp.sqrt(sum(map(square, xs), zero)) for xs in leaves]


def count_learned(tree: PyTree) -> int:
    """How many numbers of a pytree are meta-learned: those of its inexact arrays.

    **Arguments:**

    - `tree`: any pytree, say an optimizer.

    **Returns:**

    Their number.
    """
    return sum(x.size for x in jtu.tree_leaves(eqx.filter(tree, eqx.is_inexact_array)))


# With derivatives out of the result alone: those of JAX divide once more, and what divides
# XLA writes to memory for each of its readers.
@jax.custom_jvp
def inverse(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`1 / x`."""
    return 1 / x


@inverse.defjvp
def _inverse_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = inverse(*primals)
    return y, -y * y * tangents[0]


@jax.custom_jvp
def inverse_root(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`1 / sqrt(x)`."""
    return lax.rsqrt(x)


@inverse_root.defjvp
def _inverse_root_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = inverse_root(*primals)
    return y, -0.5 * y * y * y * tangents[0]


# 2**f for f in [-1/2, 1/2] is 1 + f q(f), q of these coefficients, to within 7e-8: the
# minimax polynomial, found by linear programming.
_POWER_OF_TWO = (
    0.6931465959152436,
    0.24022166008351833,
    0.05551047382506897,
    0.009674951930205714,
    0.0013202982320091221,
)


# Added to a float32 below 2**22 it leaves the nearest integer in the last bits.
_ROUNDING = 1.5 * 2**23


@jax.custom_jvp
def exponential(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`exp(x)`, in float32 by fewer instructions than XLA's on a CPU.

    Exactly 1 at 0, and to within a relative error of 4e-7 + 1e-7 |x|. It ends at the
    values for -87 and 88, so that it is neither 0 nor infinite.
    """
    if x.dtype != jnp.float32:
        return jnp.exp(x)
    # Not `jnp.clip`, which takes more instructions to keep a NaN, as these do.
    x = jnp.where(x < -87, -87, x)
    x = jnp.where(x > 88, 88, x)
    shifted = lax.bitcast_convert_type(x * math.log2(math.e) + _ROUNDING, jnp.int32)
    # A difference of integers: of floats XLA would take the constant out of both.
    n = shifted - np.float32(_ROUNDING).view(np.int32)
    f = x * math.log2(math.e) - n.astype(x.dtype)
    a, b, c, d, e = _POWER_OF_TWO
    # Terms of which none waits for all others.
    power = (1 + a * f) + f * f * ((b + c * f) + f * f * (d + e * f))
    return power * lax.bitcast_convert_type((n + 127) << 23, x.dtype)


@exponential.defjvp
def _exponential_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = exponential(*primals)
    return y, y * tangents[0]
