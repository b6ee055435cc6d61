"""The hypotheses of theorems and closed forms, checked where values can be seen."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from .._eigh import eigh


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


_SHAPES = "one number", "a vector", "a matrix"


def floating(x: ArrayLike | Sequence, axes: int, name: str) -> Float[Array, "..."]:
    """A list, or an array of any real dtype, as floating-point numbers of so many axes."""
    array = jnp.asarray(x)
    if array.ndim != axes or jnp.iscomplexobj(array):
        raise ValueError(
            f"{name} must be {_SHAPES[axes]} of real numbers; got shape {array.shape} and "
            f"dtype {array.dtype}."
        )
    inexact = jnp.issubdtype(array.dtype, jnp.floating)
    return array if inexact else array.astype(jnp.zeros(()).dtype)


# NaN passes: what is computed of a matrix that has diverged is NaN.
def is_symmetric(matrix: Float[Array, "n n"]) -> Bool[Array, ""]:
    """Whether a matrix is symmetric, to float32's rounding."""
    asymmetry = jnp.max(jnp.abs(matrix - matrix.T), initial=0)
    return ~(asymmetry > 1e-5 * jnp.max(jnp.abs(matrix), initial=0))


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
    return require(~(values[0] < -1e-5 * jnp.abs(values[-1])), symmetric, message)
