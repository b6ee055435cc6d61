"""What the per-element network reads of a tensor, by kind."""

import itertools
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kinds import check_kind
from .._means import means
from .._numerics import alike


# Of inputs that are normalised.
KINDS = "element", "row", "column"


def _vector(xs: Any) -> Any:
    if not isinstance(xs, tuple) or not xs:
        return xs
    dtype = jnp.result_type(*xs)
    return jnp.stack(alike([jnp.reshape(x, ()).astype(dtype) for x in xs]))


# Arrays of a tuple to one shape, if they broadcast: the first layer stacks them. What does
# not is left for `check_shapes` to name.
def _of_one_shape(xs: Any) -> Any:
    shapes = {jnp.shape(x) for x in xs} if isinstance(xs, tuple) else set()
    if len(shapes) < 2 or len(set(map(len, shapes))) > 1:
        return xs
    shape = tuple(map(max, zip(*shapes, strict=True)))
    if any(n not in (1, m) for s in shapes for n, m in zip(s, shape, strict=True)):
        return xs
    return tuple(jnp.broadcast_to(x, shape) for x in xs)


class Inputs(eqx.Module):
    """Network inputs of one tensor, by kind.

    An input that is constant along an axis has size 1 there, and the network's first
    layer never spreads it over the elements: row and column inputs cost what vectors
    cost. Inputs per element, row and column are divided by their root mean square over
    the tensor; inputs per tensor are taken as they are.

    **Attributes:**

    - `element`: arrays of the tensor's shape, apart: side by side they would be the
        largest array of the program.
    - `row`, `column`: arrays that broadcast to the tensor's shape: a tuple of them, or
        stacked on a new leading axis. Those of a vector are of its shape: a tuple, for
        stacked they would be the largest array of the program.
    - `tensor`: a tuple of numbers, or a vector.
    - `mean_squares`: of all inputs of a kind, by the name of the kind, where they are
        known; the network computes others in a pass of its own.
    """

    element: tuple[Array, ...] = ()
    row: Any = eqx.field(default=(), converter=_of_one_shape)
    column: Any = eqx.field(default=(), converter=_of_one_shape)
    tensor: Any = eqx.field(default=(), converter=_vector)
    mean_squares: dict[str, Float[Array, " inputs"]] = eqx.field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, (self.element, self.row, self.column, self.tensor)))


def check_inputs(inputs: Any) -> None:
    """Raises a `ValueError` for what features return in place of `Inputs`."""
    wanted = "`Inputs`, say `Inputs(element=(tensor.grad,))`"
    check_kind(inputs, Inputs, "What features return", wanted)


def check_shapes(inputs: Inputs, shape: tuple[int, ...]) -> Inputs:
    """`inputs`, or a `ValueError` where one has not the shape that its kind has."""
    check_inputs(inputs)
    for x in inputs.element:
        if jnp.shape(x) != shape:
            raise ValueError(
                f"An input per element has shape {jnp.shape(x)} in a tensor of shape "
                f"{shape}: numbers of the whole tensor go into `tensor`, and those of its "
                "rows and columns into `row` and `column`."
            )
    for kind, mean in inputs.mean_squares.items():
        number = len(getattr(inputs, kind)) if kind in KINDS else 0
        if jnp.shape(mean) != (number,) or not number:
            raise ValueError(
                f"`mean_squares['{kind}']` has shape {jnp.shape(mean)} for {number} "
                "inputs: it must be a vector with one entry for each input per element, "
                "row or column."
            )
    pairs = lambda x: zip(x.shape, shape, strict=True)
    for kind, stack in (("row", inputs.row), ("column", inputs.column)):
        for x in stack:
            if x.ndim != len(shape) or not all(m in (1, n) for m, n in pairs(x)):
                raise ValueError(
                    f"An input in `{kind}` has shape {x.shape} in a tensor of shape "
                    f"{shape}: keep all axes, with 1 for the length of those it does not "
                    "depend on, as `jnp.mean(x, -1, keepdims=True)` has."
                )
    return inputs


def mean_squares(inputs: Inputs) -> Float[Array, " normalised"]:
    """Of all inputs per element, row and column, in this order.

    Those of the tensor's size that are not known yet in one pass over it, each once.
    """
    there = {kind: x for kind in KINDS if len(x := getattr(inputs, kind))}
    found = {id(there[kind]): mean for kind, mean in inputs.mean_squares.items()}
    todo = {id(x): x for x in there.values() if id(x) not in found}
    large = {i: _squares(x) for i, x in todo.items() if are_elements(x, inputs)}
    if large:
        ends = list(itertools.accumulate(map(len, large.values())))
        of_large = means(tuple(itertools.chain(*large.values())))
        found |= zip(large, jnp.split(of_large, ends[:-1]), strict=True)
    for i, x in todo.items():
        if i not in found:
            square = as_stack(x) * as_stack(x)
            found[i] = jnp.mean(square, range(1, square.ndim))
    each = [found[id(x)] for x in there.values()]
    return jnp.concatenate(each) if each else jnp.zeros(0)


def are_elements(stack: Any, inputs: Inputs) -> bool:
    """Whether these row or column inputs are of the tensor's size, as a vector's are."""
    there = len(stack) and len(inputs.element)
    return bool(there) and stack[0].size == inputs.element[0].size


def as_stack(xs: Any) -> Array:
    """Row or column inputs on a leading axis."""
    return jnp.stack(xs) if isinstance(xs, tuple) else xs


def _squares(xs: Iterable[Array]) -> tuple[Array, ...]:
    return tuple(x * x for x in xs)
