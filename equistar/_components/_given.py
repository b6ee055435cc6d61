"""What parts give, checked while they are traced: by shapes and dtypes alone."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from .._kinds import described, is_real


Shape = tuple[int, ...]


# Also of symbolic sizes, which `jax.export` has.
def fits(shape: Shape, whole: Shape) -> bool:
    """Whether an array of `shape` broadcasts to `whole`."""
    more = len(whole) - len(shape)
    pairs = zip(shape, whole[max(more, 0) :], strict=False)
    return more >= 0 and all(m in (1, n) for m, n in pairs)


# Of each kind of part, what it gives for a tensor, and which shapes that may have.
_KINDS: dict[str, tuple[str, Callable[[Shape, Shape], bool]]] = {
    "direction": (
        "an array of the tensor's shape, say `tensor.momentum[0]`",
        lambda shape, whole: shape in (whole, ()),
    ),
    "gain": ("one number for the tensor", lambda shape, whole: shape == ()),
    "magnitude": ("of a shape that broadcasts to the tensor's", fits),
    "preconditioner": ("of a shape that broadcasts to the tensor's", fits),
    "term": ("of a shape that broadcasts to the tensor's", fits),
}


def given(kind: str, part: Any, shape: Shape, *args: Any) -> Any:
    """What a part of a kind gives for these arguments, and a tensor of that shape.

    **Raises:**

    `ValueError` if it is nothing that a part of this kind may give.
    """
    found = part(*args)
    wanted, is_shape = _KINDS[kind]
    if not is_real(found) or not is_shape(jnp.shape(found), shape):
        raise _refused(kind, part, found, shape, wanted)
    return found


def given_hidden(network: Any, shape: Shape, *args: Any) -> tuple[Any, ...]:
    """As `given`, of a network: its hidden units."""
    found = network(*args)
    wanted = "a tuple with an array for each hidden unit, which broadcasts to the tensor's"
    if not isinstance(found, tuple | list):
        raise _refused("network", network, found, shape, wanted)
    for unit in found:
        if not is_real(unit) or not fits(jnp.shape(unit), shape):
            raise _refused("network", network, unit, shape, wanted)
    return tuple(found)


def given_scale(scale: Callable[[], Any]) -> Any:
    """The number that a scale gives, or a `ValueError` for what is none."""
    found = scale()
    if not is_real(found) or jnp.shape(found) != ():
        raise ValueError(
            f"The scale {type(scale).__name__} gave {described(found)}: it must be one "
            "real number."
        )
    return found


def _refused(kind: str, part: Any, found: Any, shape: Shape, wanted: str) -> ValueError:
    return ValueError(
        f"The {kind} {type(part).__name__} gave {described(found)} for a tensor of shape "
        f"{shape}: it must be real, and {wanted}."
    )
