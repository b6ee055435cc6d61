"""Feature sets: what the per-element network reads of a tensor."""

import abc
import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kinds import check_kind
from .._numerics import alike, inverse, inverse_root, unstack
from ._factors import stacked_factors
from ._reader import AbstractPart
from ._tensor import Tensor


TIMESCALES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


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
        number = len(getattr(inputs, kind)) if kind in ("element", "row", "column") else 0
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


class AbstractFeatures(AbstractPart):
    """A set of network inputs, computed from one tensor and its accumulators.

    `reads` names the accumulators that it needs.
    """

    @abc.abstractmethod
    def __call__(self, tensor: Tensor) -> Inputs:
        """The inputs of one tensor, not yet normalised."""


class NoFeatures(AbstractFeatures):
    """No inputs: for an optimizer without a network."""

    reads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, tensor: Tensor) -> Inputs:
        return Inputs()


class AdafactorFeatures(AbstractFeatures):
    """The 39 inputs of Metz et al. (2022), which STAR uses.

    With the default accumulators, per element: the gradient, the parameter, three
    momenta $m_j$, the second moment $v$, $A_j = m_j R$ with $R = 1/\\sqrt{v + 10^{-6}}$,
    $R$, the gradient and the momenta scaled by the factored second moments; per row and
    per column: the factored second moments and their inverse roots; per tensor:
    $\\tanh(t/\\tau - 1)$ at eleven time scales. Scalars and vectors are not factored.

    Beyond the horizon of meta-training the longer time scales bring inputs that the
    network has not seen; `timescales` leaves them out.

    ??? cite "Reference"

        ```bibtex
        @inproceedings{metz2022practical,
            title={Practical Tradeoffs between Memory, Compute, and Performance in
                   Learned Optimizers},
            author={Metz, Luke and Freeman, C. Daniel and Harrison, James and
                    Maheswaranathan, Niru and Sohl-Dickstein, Jascha},
            booktitle={Conference on Lifelong Learning Agents},
            year={2022},
        }
        ```
    """

    reads: ClassVar[tuple[str, ...]] = ("momentum", "second_moment", "factored")
    timescales: tuple[int, ...] = eqx.field(static=True, default=TIMESCALES)

    # Every input is a product: its square is the same product of squares, which share
    # their factors and need no roots.
    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        g, p, ms, v = tensor.grad, tensor.param, tensor.momentum, tensor.second_moment
        rows, columns = _rows_and_columns(tensor)
        squares = _products(
            *(g * g, p * p, tuple(m * m for m in ms), v * v, inverse(v + 1e-6)),
            *_factors(tensor, rows, columns, inverse),
        )
        if tensor.param.ndim < 2:
            squares += tuple(x * x for x in _with_inverse_roots(rows))
        return dict(zip(itertools.chain(*_names(tensor).values()), squares, strict=True))

    def __call__(self, tensor: Tensor) -> Inputs:
        g, p, ms, v = tensor.grad, tensor.param, tensor.momentum, tensor.second_moment
        rows, columns = _rows_and_columns(tensor)
        row = _with_inverse_roots(rows)
        column = row if columns is rows else _with_inverse_roots(columns)
        means, names = self.means(tensor), _names(tensor)
        known = {kind: jnp.stack([means[n] for n in names[kind]]) for kind in names}
        if columns is rows:
            known["column"] = known["row"]
        return Inputs(
            element=_products(
                *(g, p, ms, v, tensor.inverse_rms),
                *_factors(tensor, rows, columns, inverse_root),
            ),
            row=row,
            column=column,
            tensor=_time_inputs(tensor, self.timescales),
            mean_squares=known,
        )


class JoinedFeatures(AbstractFeatures):
    """The inputs of several feature sets, side by side.

    Parameters and gradients are shared, and what two sets both compute XLA computes once.
    """

    sets: tuple[AbstractFeatures, ...]

    def __init__(self, *sets: AbstractFeatures):
        """**Arguments:**

        - `sets`: in the order in which the network gets their inputs of each kind.
        """
        if not sets or not all(isinstance(part, AbstractFeatures) for part in sets):
            raise ValueError(
                "JoinedFeatures needs one or more feature sets, say "
                "`JoinedFeatures(AdafactorFeatures(), TensorStatistics())`."
            )
        self.sets = sets

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for part in self.sets for name in part.reads)

    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        every = (part.averaged(tensor).items() for part in self.sets)
        return dict(itertools.chain(*every))

    def __call__(self, tensor: Tensor) -> Inputs:
        each = [part(tensor) for part in self.sets]
        for inputs in each:
            check_inputs(inputs)
        kinds = ("element", "row", "column")
        have = {kind: [x for x in each if len(getattr(x, kind))] for kind in kinds}
        return Inputs(
            element=tuple(itertools.chain(*(x.element for x in each))),
            row=_concatenated([x.row for x in each]),
            column=_concatenated([x.column for x in each]),
            tensor=_concatenated([x.tensor for x in each]),
            mean_squares={
                kind: jnp.concatenate([x.mean_squares[kind] for x in inputs])
                for kind, inputs in have.items()
                if inputs and all(kind in x.mean_squares for x in inputs)
            },
        )


# A single one stays the same object: of a vector, rows and columns are one.
def _concatenated(stacks: list[Any]) -> Any:
    there = [stack for stack in stacks if len(stack)]
    if len(there) == 1:
        return there[0]
    tuples = any(isinstance(stack, tuple) for stack in there)
    apart = tuples or len({stack.shape[1:] for stack in there}) > 1
    return tuple(itertools.chain(*there)) if apart or not there else jnp.concatenate(there)


def _products(
    g: Array,
    p: Array,
    momenta: tuple[Array, ...],
    v: Array,
    inverse_rms: Array,
    of_grad: list[Array],
    of_momentum: list[Array],
) -> tuple[Array, ...]:
    if len(momenta) != len(of_momentum):
        raise ValueError(
            f"AdafactorFeatures needs as many momenta as factored moments; got "
            f"{len(momenta)} and {len(of_momentum)}: give both as many decays."
        )
    normalised = (m * inverse_rms for m in momenta)
    grads = (g * f for f in of_grad)
    scaled = (m * f for m, f in zip(momenta, of_momentum, strict=True))
    return (g, p, *momenta, v, *normalised, inverse_rms, *grads, *scaled)


# Of the squares of inputs whose means are known, by kind, in the order of the inputs. The
# rows of a vector have its shape.
def _names(tensor: Tensor) -> dict[str, list[str]]:
    number, factors = len(tensor.momentum), len(tensor.factored)
    of_each = lambda name, count: [f"{name}_{j} {name}_{j}" for j in range(count)]
    normalised, scaled = of_each("A", number), of_each("scaled_m", number)
    element = ["grad grad", "param param", *of_each("m", number), "v v", *normalised]
    names = {"element": [*element, "R R", *of_each("scaled_grad", factors), *scaled]}
    rows = of_each("row", factors) + of_each("row_root", factors)
    return names if tensor.param.ndim >= 2 else names | {"row": rows}


def _time_inputs(tensor: Tensor, scales: tuple[int, ...]) -> Float[Array, " scales"]:
    time = tensor.count.astype(tensor.param.dtype)
    return jnp.tanh(time / jnp.array(scales, time.dtype) - 1)


# For each decay: stacked, or those of a vector apart, and the same ones.
def _rows_and_columns(tensor: Tensor) -> tuple[Any, Any]:
    if tensor.param.ndim < 2:
        rows = tuple(f.row for f in tensor.factored)
        return rows, rows
    stacked = stacked_factors(tensor.factored, tensor.param.shape)
    return stacked.row, stacked.column


# Axes of length 1 are left out between: with them XLA makes the array once for the sums of
# its squares and again for its product with the weights.
def _with_inverse_roots(xs: Any) -> Any:
    if isinstance(xs, tuple):
        return xs + tuple(inverse_root(x + 1e-8) for x in xs)
    of_one = tuple(i for i, n in enumerate(xs.shape) if i and n == 1)
    xs = jnp.squeeze(xs, of_one)
    return jnp.expand_dims(jnp.concatenate([xs, inverse_root(xs + 1e-8)]), of_one)


# What the gradient and the momenta are multiplied by, one factor for each decay, with
# `root` the inverse square root; their squares, with `root` the reciprocal.
def _factors(
    tensor: Tensor, rows: Any, columns: Any, root: Callable[[Array], Array]
) -> tuple[list[Array], list[Array]]:
    if tensor.param.ndim < 2:
        of_grad = [root(jnp.maximum(r + 1e-9, 1e-9)) for r in rows]
        return of_grad, [root(r + 1e-6) for r in rows]
    relative = rows / (tensor.factored_means.row + 1e-9)
    of_row = unstack(root(jnp.maximum(relative, 1e-9)))
    of_column = unstack(root(jnp.maximum(columns, 1e-9)))
    factors = [r * c for r, c in zip(of_row, of_column, strict=True)]
    return factors, factors
