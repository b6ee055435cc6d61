"""Parts of the step, and the means over a whole tensor that they ask for."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._kinds import described, is_real
from ._means import means
from ._reader import AbstractReader
from ._tensor import Means, SHARED, Tensor


class AbstractPart(AbstractReader):
    """A part: an accumulator, features, a term, a direction, a preconditioner or a gain.

    A part may need means over the whole tensor. It returns the arrays to be averaged from
    `averaged`, and gets their means from `means`. The means of all parts of the step are
    computed in one pass over memory, and before it those of all accumulators. A part that
    holds another one must pass on its `averaged`, as it passes on its `reads`; if it
    changes the tensor for the other, it must also set `means=None`.
    """

    def averaged(self, tensor: Tensor) -> dict[str, Float[Array, "*shape"]]:
        """The arrays whose means this part needs, by name, each of the tensor's shape.

        By default none. Names are local to the part, except those of
        [`Tensor.products`][equistar.Tensor], which begin with `tensor.`: all parts share
        their means.
        """
        del tensor
        return {}

    def means(self, tensor: Tensor) -> Means:
        """The means of the arrays in `averaged`, by name.

        Outside of an optimizer, `tensor.means` is `None` and they take a separate pass.
        """
        return means_for([self], tensor)[0] if tensor.means is None else tensor.means


def means_for(
    parts: list[AbstractPart],
    tensor: Tensor,
    sample: Callable[[Array], Array] = lambda x: x,
) -> list[Means]:
    """For each part the means that it asks for, of all in one pass over memory.

    They are taken over those elements of each array that `sample` gives.
    """
    each = (asked(part, tensor) for part in parts)
    wanted = scoped(list(each))
    dtype = tensor.param.dtype
    arrays = [sample(jnp.asarray(x).astype(dtype)) for x in wanted.values()]
    every = Means(means(arrays), {name: i for i, name in enumerate(wanted)})
    return [within(every, i) for i in range(len(parts))]


def scoped(each: list[dict[str, Any]]) -> dict[str, Any]:
    """What several parts ask for, under names of which no two mean different arrays."""
    return {_scoped(name, i): x for i, d in enumerate(each) for name, x in d.items()}


def within(every: Means, i: int) -> Means:
    """What the i-th of these parts asked for, under its own names."""
    ours = _scoped("", i)
    names = [name for name in every if name.startswith((ours, SHARED))]
    return every.renamed({name: name.removeprefix(ours) for name in names})


def _scoped(name: str, i: int) -> str:
    return name if name.startswith(SHARED) else f"{i}/{name}"


def asked(part: AbstractPart, tensor: Tensor) -> dict[str, Any]:
    """What `averaged` of a part returns: what holds a part passes on this of it.

    **Raises:**

    `ValueError` if it is no dictionary of real arrays of the tensor's shape.
    """
    wanted, name_of = part.averaged(tensor), type(part).__name__
    if not isinstance(wanted, dict) or not all(isinstance(n, str) for n in wanted):
        raise ValueError(
            f"`averaged` of {name_of} must return a dictionary of arrays by name, say "
            "`{'m g': tensor.momentum[0] * tensor.grad}`."
        )
    for name, x in wanted.items():
        is_array = isinstance(x, jax.Array | np.ndarray) and is_real(x)
        if not is_array or x.shape != tensor.param.shape:
            raise ValueError(
                f"`averaged` of {name_of} gave {described(x)} as '{name}' for a tensor of "
                f"shape {tensor.param.shape}: it must return real arrays of the tensor's "
                "shape."
            )
    return wanted
