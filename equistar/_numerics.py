"""Numerical helpers that several layers need."""

import functools as ft
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax.sharding import AxisType
from jaxtyping import Array, Bool, Float, Int, PyTree


# By default products of float32 are of TF32 on a GPU, and of bfloat16 on a TPU.
matmul = ft.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


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


def varying_as(x: Array, zeros: Array) -> Array:
    """Zeros, which inside of `shard_map` count as different wherever `x` is."""
    if not isinstance(x, jax.core.Tracer):
        return zeros
    if AxisType.Manual not in jax.typeof(x).sharding.mesh.axis_types:
        return zeros
    return jnp.maximum(zeros, jnp.max(jnp.zeros_like(x, zeros.dtype), initial=0))


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


def is_number(value: Any) -> bool:
    """Whether `value` is one real floating-point number, which has a gradient."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return value.ndim == 0 and bool(jnp.issubdtype(value.dtype, jnp.floating))
    return isinstance(value, float)


def is_real(value: Any) -> bool:
    """Whether `value` is of real numbers, or of truth values: an array, or a number."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        kinds = jnp.floating, jnp.integer, jnp.bool_
        return any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
    return isinstance(value, int | float)


def described(value: Any) -> str:
    """What a value is, for an error: its values may not be known."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return f"shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}"


def count_learned(tree: PyTree) -> int:
    """How many numbers of a pytree are meta-learned: those of its inexact arrays.

    **Arguments:**

    - `tree`: any pytree, say an optimizer.

    **Returns:**

    Their number.
    """
    return sum(x.size for x in jtu.tree_leaves(eqx.filter(tree, eqx.is_inexact_array)))


def by_device(default: Callable, **forms: Callable) -> Callable:
    """`default`, or the form of the same function for the device of the program.

    Chosen when a program is lowered. Derivatives are those of `default`.

    **Arguments:**

    - `forms`: by platform, as in `jax.lax.platform_dependent`.
    """

    @jax.custom_jvp
    def function(*args: Any) -> Any:
        return lax.platform_dependent(*args, default=default, **forms)

    # The value is the function's own: JAX takes the axis of a batch in what a rule gives to
    # be where the function has it (jax-ml/jax#16374).
    def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        return function(*primals), jax.jvp(default, primals, tangents)[1]

    function.defjvp(rule)
    return function


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


def twice(x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], ...]:
    """`x` and again `x`: on a CPU two arrays to XLA, which would write to memory what the
    readers of one both compute; elsewhere it makes these in one pass.
    """
    apart = lambda x: lax.optimization_barrier((x, x))
    return by_device(lambda x: (x, x), cpu=apart)(x)


def alike(xs: Sequence[Float[Array, "*shape"]]) -> tuple[Float[Array, "*shape"], ...]:
    """The same arrays, such that JAX treats all alike: if one is batched, sharded or
    differentiated, all are. The compiler removes the selections by which this is done.
    """
    one_of_them = lax.select_n(jnp.int32(0), *xs)
    return tuple(lax.select_n(jnp.bool_(False), x, one_of_them) for x in xs)


def batch_first(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """`x`, whose axis of a batch is the first under `jax.vmap`, as that of `unstack` is."""
    return lax.squeeze(lax.expand_dims(x, (0,)), (0,))


def unstack(x: Float[Array, "arrays ..."]) -> list[Float[Array, "..."]]:
    """The arrays stacked on the first axis. Its derivative is one concatenation."""
    return [lax.squeeze(part, (0,)) for part in lax.split(x, (1,) * len(x))]
