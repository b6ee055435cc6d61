"""The hypotheses of theorems and closed forms, checked where values can be seen."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

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


# NaN passes: what is computed of a matrix that has diverged is NaN.
def is_symmetric(matrix: Float[Array, "n n"]) -> Bool[Array, ""]:
    """Whether a matrix is symmetric, to float32's rounding."""
    asymmetry = jnp.max(jnp.abs(matrix - matrix.T), initial=0)
    return ~(asymmetry > 1e-5 * jnp.max(jnp.abs(matrix), initial=0))


def positive_definite(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """The matrix, which must be symmetric with no eigenvalue below zero."""
    symmetric = require(
        is_symmetric(matrix), matrix, "The Hessian must be symmetric: pass (H + H.T) / 2."
    )
    values = eigh(symmetric)[0]
    message = "The Hessian must be positive definite: it has an eigenvalue below zero."
    return require(~(values[0] < -1e-5 * jnp.abs(values[-1])), symmetric, message)
