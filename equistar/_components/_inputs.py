"""What the per-element network reads of a tensor, by kind."""

import itertools
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kinds import check_kind, described, is_real
from .._lowering import alike, unstack
from ._means import means


# Of inputs that are normalised.
KINDS = "element", "row", "column"


# What is no number of the whole tensor is left for `check_inputs` to name.
def _vector(xs: Any) -> Any:
    if not isinstance(xs, tuple) or not xs or not all(map(_is_one_number, xs)):
        return xs
    dtype = jnp.result_type(*xs)
    return jnp.stack(alike([jnp.reshape(x, ()).astype(dtype) for x in xs]))


def _is_one_number(x: Any) -> bool:
    return is_real(x) and all(n == 1 for n in jnp.shape(x))


# Arrays of a tuple to one shape, if they broadcast: the first layer stacks them. What does
# not is left for `check_shapes` to name.
def _of_one_shape(xs: Any) -> Any:
    if not isinstance(xs, tuple) or not all(map(is_real, xs)):
        return xs
    shapes = {jnp.shape(x) for x in xs}
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

    - `element`: a tuple of arrays of the tensor's shape. They are not stacked, because the
        stack would be the largest array of the program.
    - `row`, `column`: arrays that broadcast to the tensor's shape: a tuple of them, or one
        array with a new leading axis. For a vector they have its shape: give a tuple,
        because the stack would be the largest array of the program.
    - `tensor`: a tuple of numbers, or a vector.
    - `mean_squares`: the mean squares that are known: for `"element"`, `"row"` and
        `"column"`, a vector, or a tuple with a number or `None` for each input. The network
        computes those that are missing in one more pass over memory.
    """

    element: tuple[Array, ...] = ()
    row: Any = eqx.field(default=(), converter=_of_one_shape)
    column: Any = eqx.field(default=(), converter=_of_one_shape)
    tensor: Any = eqx.field(default=(), converter=_vector)
    mean_squares: dict[str, Any] = eqx.field(default_factory=dict)

    def __len__(self) -> int:
        return sum(map(len, (self.element, self.row, self.column, self.tensor)))


def check_inputs(inputs: Any, features: Any = None) -> None:
    """Raises a `ValueError` for what `features` return in place of `Inputs`."""
    of = "features" if features is None else f"the features {type(features).__name__}"
    wanted = "`Inputs`, say `Inputs(element=(tensor.grad,))`"
    check_kind(inputs, Inputs, f"What {of} return", wanted)
    for kind in (*KINDS, "tensor"):
        for x in _misfits(kind, getattr(inputs, kind)):
            raise ValueError(
                f"What {of} return has {described(x)} in `{kind}` of `Inputs`: it must be "
                f"{_WANTED[kind == 'tensor']}."
            )
    _check_mean_squares(inputs, of)


def _check_mean_squares(inputs: Inputs, of: str) -> None:
    known_kinds = inputs.mean_squares
    if not isinstance(known_kinds, dict) or not all(map(_are_known, known_kinds.values())):
        raise ValueError(
            f"The `mean_squares` that {of} return must be a dictionary of tuples of real "
            "numbers, or of vectors, as in `mean_squares={'element': (mean, None)}` for "
            "two inputs."
        )
    for kind, known in known_kinds.items():
        number = len(getattr(inputs, kind)) if kind in KINDS else 0
        if len(known) != number:
            raise ValueError(
                f"`mean_squares` has {len(known)} numbers of {number} inputs in '{kind}': "
                "there must be one for each input in 'element', 'row' or 'column', or "
                "`None` where it is not known."
            )


_WANTED = (
    "a tuple of real arrays, say `(tensor.grad,)`",
    "a tuple of real numbers, and arrays of the tensor's shape go into `element`",
)


def _misfits(kind: str, xs: Any) -> list[Any]:
    """What is no input of that kind."""
    is_array = lambda x: is_real(x) and hasattr(x, "dtype")
    if kind == "tensor":
        if isinstance(xs, tuple):
            return [x for x in xs if not _is_one_number(x)]
        return [] if is_array(xs) and jnp.ndim(xs) == 1 else [xs]
    if isinstance(xs, tuple | list):
        return [x for x in xs if not is_array(x)]
    return [] if kind != "element" and is_array(xs) else [xs]


def _are_known(known: Any) -> bool:
    if isinstance(known, tuple | list):
        return all(x is None or (is_real(x) and jnp.ndim(x) == 0) for x in known)
    return is_real(known) and jnp.ndim(known) == 1


def known_mean_squares(inputs: Inputs, kind: str) -> Any:
    """Of each input of a kind, or `None` where it is not known: a vector, or a tuple."""
    known = inputs.mean_squares.get(kind, (None,) * len(getattr(inputs, kind)))
    return tuple(known) if isinstance(known, tuple | list) else jnp.asarray(known)


def check_shapes(inputs: Inputs, shape: tuple[int, ...], features: Any) -> Inputs:
    """`inputs`, or a `ValueError` where one has not the shape that its kind has."""
    check_inputs(inputs, features)
    of = f"Of the features {type(features).__name__}"
    for x in inputs.element:
        if jnp.shape(x) != shape:
            raise ValueError(
                f"{of}, an input per element has shape {jnp.shape(x)} in a tensor of shape "
                f"{shape}: numbers of the whole tensor go into `tensor`, and those of its "
                "rows and columns into `row` and `column`."
            )
    pairs = lambda x: zip(x.shape, shape, strict=True)
    for kind, stack in (("row", inputs.row), ("column", inputs.column)):
        for x in stack:
            if x.ndim != len(shape) or not all(m in (1, n) for m, n in pairs(x)):
                raise ValueError(
                    f"{of}, an input in `{kind}` has shape {x.shape} in a tensor of shape "
                    f"{shape}: keep all axes, with 1 for the length of those it does not "
                    "depend on, as `jnp.mean(x, -1, keepdims=True)` has."
                )
    return inputs


def mean_squares(inputs: Inputs) -> Float[Array, " normalised"]:
    """Of all inputs per element, row and column, in this order.

    Those of the tensor's size that are not known yet in one pass over it, each once.
    """
    kinds = [(getattr(inputs, k), known_mean_squares(inputs, k)) for k in KINDS]
    # The rows and the columns of a vector are one object.
    different = {id(xs): (xs, known) for xs, known in kinds if len(xs)}
    unknown = {i: _unknown(xs, known) for i, (xs, known) in different.items()}
    large = [i for i, (xs, _) in different.items() if are_elements(xs, inputs)]
    of_large = means([x * x for i in large for x in unknown[i]])
    ends = itertools.accumulate((len(unknown[i]) for i in large), initial=0)
    shares = zip(large, itertools.pairwise(ends), strict=True)
    new = {i: of_large[begin:end] for i, (begin, end) in shares}
    found = {
        i: _merged(known, new[i] if i in new else _small_mean_squares(xs, unknown[i]))
        for i, (xs, known) in different.items()
    }
    each = [found[id(xs)] for xs, _ in kinds if len(xs)]
    return jnp.concatenate(each) if each else jnp.zeros(0)


def _unknown(xs: Any, known: Any) -> list[Array]:
    if not isinstance(known, tuple):
        return []
    return [x for x, mean in zip(xs, known, strict=True) if mean is None]


def _small_mean_squares(xs: Any, unknown: list[Array]) -> Float[Array, " unknown"]:
    if not unknown:
        return jnp.zeros(0)
    stack = as_stack(xs) if len(unknown) == len(xs) else jnp.stack(unknown)
    return jnp.mean(stack * stack, range(1, stack.ndim))


# As vectors: cut apart, each number would be a kernel of its own.
def _merged(known: Any, new: Float[Array, " unknown"]) -> Float[Array, " known"]:
    if not isinstance(known, tuple):
        return known
    if len(new) == len(known):
        return new
    rest = iter(unstack(new)) if len(new) else iter(())
    return jnp.stack([next(rest) if mean is None else mean for mean in known])


def are_elements(stack: Any, inputs: Inputs) -> bool:
    """Whether these row or column inputs are of the tensor's size, as a vector's are."""
    there = len(stack) and len(inputs.element)
    return bool(there) and stack[0].size == inputs.element[0].size


def as_stack(xs: Any) -> Array:
    """Row or column inputs on a leading axis."""
    return jnp.stack(xs) if isinstance(xs, tuple) else xs
