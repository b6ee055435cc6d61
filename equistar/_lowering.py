"""How arrays look to the compiler: what depends on what, and what is made at once."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.sharding import AxisType
from jaxtyping import Array, Float, Int, PyTree


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


def varying_as(x: Array, zeros: Array) -> Array:
    """Zeros, which inside of `shard_map` count as different wherever `x` is."""
    if not isinstance(x, jax.core.Tracer):
        return zeros
    if AxisType.Manual not in jax.typeof(x).sharding.mesh.axis_types:
        return zeros
    return jnp.maximum(zeros, jnp.max(jnp.zeros_like(x, zeros.dtype), initial=0))


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
