"""The features of Adafactor's accumulators, which STAR uses."""

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kinds import as_tuple, check_counts
from .._lowering import by_device, unstack
from .._numerics import inverse, inverse_root
from ._factors import Factors, stacked_factors
from ._features import AbstractFeatures
from ._inputs import Inputs
from ._tensor import Tensor


TIMESCALES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)


class AdafactorFeatures(AbstractFeatures):
    """The 39 inputs of Metz et al. (2022), which STAR uses.

    With the default accumulators, per element: the gradient, the parameter, three
    momenta $m_j$, the second moment $v$, $A_j = m_j R$ with $R = 1/\\sqrt{v + 10^{-6}}$,
    $R$, the gradient and the momenta scaled by the factored second moments; per row and
    per column: the factored second moments and their inverse roots; per tensor:
    $\\tanh(t/\\tau - 1)$ at eleven time scales, with $t$ in updates.

    Of the row and column means $r_j$ and $c_j$ of squared gradients, the inverse roots are
    $1/\\sqrt{r_j + 10^{-8}}$ and $1/\\sqrt{c_j + 10^{-8}}$, and the gradient and the $j$-th
    momentum are multiplied by
    $$\\left(\\max\\left(\\frac{r_j}{\\bar r_j + 10^{-9}}, 10^{-9}\\right)
    \\max(c_j, 10^{-9})\\right)^{-1/2}$$ with $\\bar r_j$ the mean of $r_j$ over the
    rows ([`equistar.FactoredSecondMoment`][] says which axis that is). Scalars and
    vectors are not factored: $r_j = c_j$ are averages of the squared gradient itself, the
    gradient is multiplied by $(r_j + 10^{-9})^{-1/2}$, and the momenta by
    $(r_j + 10^{-6})^{-1/2}$.

    **Attributes:**

    - `timescales`: $\\tau$, in updates: whole numbers of at least 1. Beyond the horizon of
        meta-training, the longer ones give inputs that the network has not seen; leave them
        out here.

    **Raises:**

    `ValueError` if `timescales` are not such numbers.

    ??? cite

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
    timescales: tuple[int, ...] = eqx.field(
        static=True, default=TIMESCALES, converter=as_tuple
    )

    def __check_init__(self):
        check_counts(self.timescales, "timescales")

    # Every input is a product: its square is the same product of squares, which share
    # their factors and need no roots.
    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        g, p, ms, v = tensor.grad, tensor.param, tensor.momentum, tensor.second_moment
        rows, _ = _rows_and_columns(tensor)
        squares = _products(
            *(g * g, p * p, tuple(m * m for m in ms), v * v, inverse(v + 1e-6)),
            *_factors(tensor, rows, inverse),
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
        known = {kind: means.together(names[kind]) for kind in names}
        if columns is rows:
            known["column"] = known["row"]
        return Inputs(
            element=_products(
                *(g, p, ms, v, tensor.inverse_rms),
                *_factors(tensor, rows, inverse_root),
            ),
            row=row,
            column=column,
            tensor=_time_inputs(tensor, self.timescales),
            mean_squares=known,
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
    square = lambda name, j: f"{name}_{j} {name.removeprefix('tensor.')}_{j}"
    of_each = lambda name, count: [square(name, j) for j in range(count)]
    normalised, scaled = of_each("tensor.A", number), of_each("scaled_m", number)
    element = ["grad grad", "tensor.p p", *of_each("m", number), "v v", *normalised]
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
    tensor: Tensor, rows: Any, root: Callable[[Array], Array]
) -> tuple[list[Array], list[Array]]:
    if tensor.param.ndim < 2:
        of_grad = [root(jnp.maximum(r + 1e-9, 1e-9)) for r in rows]
        return of_grad, [root(r + 1e-6) for r in rows]
    factors = [r * c for r, c in zip(*_of_rows_and_columns(tensor, root), strict=True)]
    return factors, factors


# Side by side, they are two kernels on a CPU instead of six. A GPU writes several arrays in
# one kernel, and needs others to cut what is side by side.
def _of_rows_and_columns(
    tensor: Tensor, root: Callable[[Array], Array]
) -> tuple[list[Array], list[Array]]:
    shape = tensor.param.shape

    def stacked(factored: tuple[Factors, ...], mean: Array) -> tuple[list[Array], ...]:
        factors = stacked_factors(factored, shape)
        relative = factors.row / (mean + 1e-9)
        stacks = (root(jnp.maximum(x, 1e-9)) for x in (relative, factors.column))
        return tuple(map(unstack, stacks))

    def apart(factored: tuple[Factors, ...], mean: Array) -> tuple[list[Array], ...]:
        each = [stacked((f,), m[None]) for f, m in zip(factored, mean, strict=True)]
        return [row for (row,), _ in each], [column for _, (column,) in each]

    of_rows_and_columns = by_device(stacked, cuda=apart, rocm=apart)
    return of_rows_and_columns(tensor.factored, tensor.factored_means.row)
