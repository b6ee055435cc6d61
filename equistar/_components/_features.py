"""Feature sets: what the per-element network reads of a tensor."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._accumulators import factored_axes
from ._tensor import Factors, Tensor


TIMESCALES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


class Inputs(eqx.Module):
    """Network inputs of one tensor, by kind.

    An input that is constant along an axis has size 1 there, and the network's first
    layer never spreads it over the elements: row and column inputs cost what vectors
    cost. Inputs per element, row and column are divided by their root mean square over
    the tensor; inputs per tensor are taken as they are.

    **Attributes:**

    - `element`: arrays of the tensor's shape.
    - `row`, `column`: arrays that broadcast to the tensor's shape.
    - `tensor`: scalars, or arrays of size 1 that broadcast to the tensor's shape.
    """

    element: tuple[Array, ...] = ()
    row: tuple[Array, ...] = ()
    column: tuple[Array, ...] = ()
    tensor: tuple[Array, ...] = ()

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
        if tensor.param.ndim < 2:
            rows = columns = tuple(f.row for f in tensor.factored)
            scaled = _scaled_by_vector(tensor)
            inverse_rows = tuple(lax.rsqrt(r + 1e-8) for r in rows)
            inverse_columns = inverse_rows
        else:
            rows, columns = _spread(tensor.param.shape, tensor.factored)
            scaled = _scaled_by_factors(tensor, rows, columns)
            inverse_rows = tuple(lax.rsqrt(r + 1e-8) for r in rows)
            inverse_columns = tuple(lax.rsqrt(c + 1e-8) for c in columns)
        scaled_grads, scaled_momenta = scaled
        return Inputs(
            element=(
                tensor.grad,
                tensor.param,
                *tensor.momentum,
                tensor.second_moment,
                *tensor.normalised_momentum,
                tensor.inverse_rms,
                *scaled_grads,
                *scaled_momenta,
            ),
            row=(*rows, *inverse_rows),
            column=(*columns, *inverse_columns),
            tensor=_time_inputs(tensor),
        )


def _time_inputs(tensor: Tensor) -> tuple[Float[Array, ""], ...]:
    time = tensor.count.astype(tensor.param.dtype)
    return tuple(jnp.tanh(time / tau - 1) for tau in TIMESCALES)


def _spread(
    shape: tuple[int, ...], factors: tuple[Factors, ...]
) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    d1, d0 = factored_axes(shape)
    rows = tuple(jnp.expand_dims(f.row, d0) for f in factors)
    columns = tuple(jnp.expand_dims(f.column, d1) for f in factors)
    return rows, columns


def _scaled_by_factors(
    tensor: Tensor, rows: tuple[Array, ...], columns: tuple[Array, ...]
) -> tuple[list[Array], list[Array]]:
    d1, _ = factored_axes(tensor.param.shape)
    grads, momenta = [], []
    for m, row, column in zip(tensor.momentum, rows, columns, strict=True):
        mean_row = jnp.mean(row, d1, keepdims=True)
        row_factor = _safe_rsqrt(row / (mean_row + 1e-9))
        column_factor = _safe_rsqrt(column)
        grads.append(tensor.grad * row_factor * column_factor)
        momenta.append(m * row_factor * column_factor)
    return grads, momenta


def _scaled_by_vector(tensor: Tensor) -> tuple[list[Array], list[Array]]:
    grads = [tensor.grad * _safe_rsqrt(f.row + 1e-9) for f in tensor.factored]
    momenta = [
        m * lax.rsqrt(f.row + 1e-6)
        for m, f in zip(tensor.momentum, tensor.factored, strict=True)
    ]
    return grads, momenta


def _safe_rsqrt(x: Array) -> Array:
    return lax.rsqrt(jnp.maximum(x, 1e-9))
