"""Feature sets: what the per-element network reads of a tensor."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._numerics import unstack
from ._accumulators import factored_axes
from ._tensor import Tensor


TIMESCALES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


def _stacked(xs: Any) -> Any:
    return jnp.stack(xs) if isinstance(xs, tuple) and xs else xs


def _vector(xs: Any) -> Any:
    return _stacked(tuple(jnp.reshape(x, ()) for x in xs)) if isinstance(xs, tuple) else xs


class Inputs(eqx.Module):
    """Network inputs of one tensor, by kind.

    An input that is constant along an axis has size 1 there, and the network's first
    layer never spreads it over the elements: row and column inputs cost what vectors
    cost. Inputs per element, row and column are divided by their root mean square over
    the tensor; inputs per tensor are taken as they are.

    **Attributes:**

    - `element`: arrays of the tensor's shape, apart: side by side they would be the
        largest array of the program.
    - `element_squares`: the squares of `element`, where there is a cheaper way to them
        than to square each; else empty.
    - `row`, `column`: arrays that broadcast to the tensor's shape: a tuple of them, or
        stacked on a new leading axis.
    - `tensor`: a tuple of numbers, or a vector.
    """

    element: tuple[Array, ...] = ()
    element_squares: tuple[Array, ...] = ()
    row: Any = eqx.field(default=(), converter=_stacked)
    column: Any = eqx.field(default=(), converter=_stacked)
    tensor: Any = eqx.field(default=(), converter=_vector)

    def __len__(self) -> int:
        return sum(map(len, (self.element, self.row, self.column, self.tensor)))


class AbstractFeatures(eqx.Module):
    """A set of network inputs, computed from one tensor and its accumulators.

    `reads` names the accumulators that it needs.
    """

    reads: ClassVar[tuple[str, ...]]

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

    def __call__(self, tensor: Tensor) -> Inputs:
        g, p, ms, v = tensor.grad, tensor.param, tensor.momentum, tensor.second_moment
        rows, columns = _rows_and_columns(tensor)
        row = jnp.concatenate([rows, lax.rsqrt(rows + 1e-8)])
        column = jnp.concatenate([columns, lax.rsqrt(columns + 1e-8)])
        # Every input is a product: its square is the same product of squares, which
        # share their factors and need no roots.
        return Inputs(
            element=_products(
                *(g, p, ms, v, tensor.inverse_rms),
                *_factors(tensor, rows, columns, lax.rsqrt),
            ),
            element_squares=_products(
                *(g * g, p * p, tuple(m * m for m in ms), v * v, 1 / (v + 1e-6)),
                *_factors(tensor, rows, columns, jnp.reciprocal),
            ),
            row=row,
            column=row if columns is rows else column,
            tensor=_time_inputs(tensor),
        )


def _products(
    g: Array,
    p: Array,
    momenta: tuple[Array, ...],
    v: Array,
    inverse_rms: Array,
    of_grad: list[Array],
    of_momentum: list[Array],
) -> tuple[Array, ...]:
    normalised = (m * inverse_rms for m in momenta)
    grads = (g * f for f in of_grad)
    scaled = (m * f for m, f in zip(momenta, of_momentum, strict=True))
    return (g, p, *momenta, v, *normalised, inverse_rms, *grads, *scaled)


def _time_inputs(tensor: Tensor) -> Float[Array, " scales"]:
    time = tensor.count.astype(tensor.param.dtype)
    return jnp.tanh(time / jnp.array(TIMESCALES, time.dtype) - 1)


# Stacked over the decays.
def _rows_and_columns(tensor: Tensor) -> tuple[Array, Array]:
    rows = jnp.stack([f.row for f in tensor.factored])
    if tensor.param.ndim < 2:
        return rows, rows
    d1, d0 = factored_axes(tensor.param.shape)
    columns = jnp.stack([f.column for f in tensor.factored])
    return jnp.expand_dims(rows, 1 + d0), jnp.expand_dims(columns, 1 + d1)


# What the gradient and the momenta are multiplied by, one factor for each decay, with
# `root` the inverse square root; their squares, with `root` the reciprocal.
def _factors(
    tensor: Tensor, rows: Array, columns: Array, root: Callable[[Array], Array]
) -> tuple[list[Array], list[Array]]:
    if tensor.param.ndim < 2:
        of_grad = root(jnp.maximum(rows + 1e-9, 1e-9))
        return unstack(of_grad), unstack(root(rows + 1e-6))
    d1, _ = factored_axes(tensor.param.shape)
    relative = rows / (jnp.mean(rows, 1 + d1, keepdims=True) + 1e-9)
    of_row = unstack(root(jnp.maximum(relative, 1e-9)))
    of_column = unstack(root(jnp.maximum(columns, 1e-9)))
    factors = [r * c for r, c in zip(of_row, of_column, strict=True)]
    return factors, factors
