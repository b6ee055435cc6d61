"""The hypotheses of theorems and closed forms, checked where values can be seen."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from .._eigh import eigh
from .._numerics import accumulator_dtype


def require(
    allowed: bool | Bool[Array, ""], x: Float[Array, "*shape"], message: str
) -> Float[Array, "*shape"]:
    """`x` if it is allowed; else a `ValueError`, or NaN inside of jit."""
    try:
        refused = not bool(allowed)
    except jax.errors.TracerBoolConversionError:
        return jnp.where(allowed, x, jnp.nan)
    if refused:
        raise ValueError(message)
    return x


_SHAPES = (
    "one real number (for several use jax.vmap)",
    "a vector of real numbers",
    "a matrix of real numbers",
)


def floating(x: ArrayLike | Sequence, axes: int, name: str) -> Float[Array, "..."]:
    """A list, or an array of any real dtype, as numbers of so many axes.

    They are of 32 bits or more: the decompositions of matrices know no others.
    """
    array = jnp.asarray(x)
    if array.ndim != axes or jnp.iscomplexobj(array):
        raise ValueError(
            f"{name} must be {_SHAPES[axes]}; got shape {array.shape} and dtype "
            f"{array.dtype}."
        )
    inexact = jnp.issubdtype(array.dtype, jnp.floating)
    wide = accumulator_dtype(array.dtype) if inexact else jnp.zeros(()).dtype
    return array.astype(wide)


def check_scalars(**numbers: ArrayLike | Sequence) -> None:
    """Raises a `ValueError` unless each is one real number: a vector would broadcast."""
    for name, x in numbers.items():
        floating(x, 0, f"`{name}`")


# NaN passes: what is computed of a matrix that has diverged is NaN.
def is_symmetric(matrix: Float[Array, "n n"]) -> Bool[Array, ""]:
    """Whether a matrix is symmetric, to float32's rounding.

    Each entry to that of the largest in its row and column: a large block does not hide
    another one's asymmetry.
    """
    size = jnp.abs(matrix)
    largest = jnp.max(jnp.maximum(size, size.T), axis=1, initial=0)
    scale = jnp.sqrt(largest)
    return ~jnp.any(jnp.abs(matrix - matrix.T) > 1e-5 * scale[:, None] * scale[None])


def positive_semidefinite(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The matrix, which must be symmetric with no eigenvalue below zero, to rounding."""
    matrix = floating(matrix, 2, "The Hessian")
    if matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"The Hessian must be square; got shape {matrix.shape}.")
    symmetric = require(
        is_symmetric(matrix), matrix, "The Hessian must be symmetric: pass (H + H.T) / 2."
    )
    values = eigh(symmetric)[0]
    message = "The Hessian must be positive semidefinite: it has an eigenvalue below zero."
    # What rounding its entries, and finding its eigenvalues, may make of a zero.
    rounding = 4 * math.sqrt(len(matrix)) * float(np.finfo(np.float32).eps)
    return require(~(values[0] < -rounding * jnp.abs(values[-1])), symmetric, message)
