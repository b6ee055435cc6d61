"""Which tensors go through an update side by side, and small ones as one."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Int

from .._lowering import unstack


# Elements of a small tensor, at most; and of how many of one shape a stack is made. One
# more kernel for each array of a stack, and one for each tensor, take the place of eight
# to twenty for each tensor.
_SMALL = 8192
_SEVERAL = 4

# Of one tensor: its number of stacked axes, gradient, parameter and accumulators.
Update = tuple[int, Array, Array, dict[str, tuple[Any, ...]]]


def groups(tensors: Sequence[Update]) -> list[list[int]]:
    """The indices of those tensors that go through the update side by side.

    That is all that are spread over devices, for then what they need of others' crosses at
    once, and small ones of one shape, dtype and place. Any other goes alone, which lets go
    of its gradient before another's has to be known.
    """
    found: dict[Any, list[int]] = {}
    for i, tensor in enumerate(tensors):
        found.setdefault(_kind(tensor) or i, []).append(i)
    return list(found.values())


def is_spread(param: Array) -> bool:
    """Whether a tensor is known to be spread over devices."""
    return jax.typeof(param).sharding.mesh.size > 1


def as_one(
    step: Callable[..., Array],
    tensors: Sequence[tuple[Any, ...]],
    count: Int[Array, ""],
) -> list[Array]:
    """The updates of tensors of one shape, as those of one stack: one program for all.

    **Arguments:**

    - `step`: takes what `tensors` holds of each, stacked, and the count.
    - `tensors`: of each, the arguments of `step`.
    - `count`: the number of updates made.
    """
    stacked = jtu.tree_map(lambda *xs: jnp.stack(xs), *tensors)
    run = lambda stacked, count: step(*stacked, count)

    # XLA for CPU would put all of the step into the kernel that cuts out one update, and
    # compile each of these. It does so into no branch, and does not know that no count is
    # negative.
    def in_branch(stacked: tuple[Any, ...], count: Int[Array, ""]) -> Array:
        zeros = lambda stacked, count: jnp.zeros_like(jax.eval_shape(run, stacked, count))
        return lax.cond(count >= 0, run, zeros, stacked, count)

    return unstack(lax.platform_dependent(stacked, count, cpu=in_branch, default=run))


def several(group: Sequence[Any]) -> bool:
    """Whether there are enough tensors for a stack to pay."""
    return len(group) >= _SEVERAL


def _kind(tensor: Update) -> Any:
    stacked, _, param, _ = tensor
    if is_spread(param):
        return "spread"
    if not 0 < param.size <= _SMALL:
        return None
    # Where it is known: arrays on two devices make no stack.
    there = None if isinstance(param, jax.core.Tracer) else getattr(param, "sharding", None)
    # A state that is not of arrays is named where it is read.
    kind = lambda x: (jnp.shape(x), getattr(x, "dtype", type(x)))
    return (stacked, there, *map(kind, jtu.tree_leaves(tensor[1:])))
