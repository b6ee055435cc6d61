"""Parts that read accumulators, and means over the whole tensor."""

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kinds import check_parts
from .._means import means
from .._numerics import unstack
from ._tensor import Means, Tensor


class AbstractReader(eqx.Module):
    """A part that reads the accumulators that `reads` names: by default none."""

    reads: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self) -> None:
        check_parts(self)
        if isinstance(self.reads, str):
            raise ValueError(
                f"`reads` of {type(self).__name__} must be a tuple of names: write "
                f"`reads = ({self.reads!r},)`, with a comma."
            )


class AbstractPart(AbstractReader):
    """A part of the step: it may also need means over the whole tensor."""

    def averaged(self, tensor: Tensor) -> dict[str, Float[Array, "*shape"]]:
        """What this part needs the means of, by name: arrays of the tensor's shape.

        By default none. Those of all parts, the squares of the network's inputs among
        them, are averaged in one pass over memory. One name stands for one array,
        whichever part gives it.
        """
        del tensor
        return {}

    def means(self, tensor: Tensor) -> dict[str, Float[Array, ""]]:
        """The means of `averaged`, by name.

        Those of `tensor.means`; where it has none, as outside of an optimizer, in a pass
        over memory.
        """
        return _means(self.averaged(tensor)) if tensor.means is None else tensor.means


def with_means(parts: Iterable[AbstractPart], tensor: Tensor) -> Tensor:
    """`tensor`, with the means that any of `parts` needs."""
    wanted: dict[str, Array] = {}
    for part in parts:
        for name, x in part.averaged(tensor).items():
            if jnp.shape(x) != tensor.param.shape:
                raise ValueError(
                    f"{type(part).__name__} wants the mean of '{name}', of shape "
                    f"{jnp.shape(x)} in a tensor of shape {tensor.param.shape}: what "
                    "`averaged` returns must have the tensor's shape."
                )
            wanted[name] = x
    return dataclasses.replace(tensor, means=_means(wanted))


def _means(arrays: dict[str, Array]) -> Means:
    if not arrays:
        return Means()
    return Means(zip(arrays, unstack(means(tuple(arrays.values()))), strict=True))
