"""The weights that a network and its heads begin with."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._kinds import check_function, described, is_real


Initializer = Callable[..., Array]


def release_init(key: PRNGKeyArray, shape: tuple[int, ...], dtype=None) -> Array:
    """N(0, 1) truncated to [-2, 2], over the square root of the fan-in `shape[0]`.

    The released implementation's initialiser: not rescaled for the truncation, so the
    standard deviation is 0.880 / sqrt(fan_in).

    **Arguments:**

    - `key`: a PRNG key.
    - `shape`, `dtype`: of the weights; by default the dtype of `jnp.zeros(())`.

    **Returns:** the weights.
    """
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    return jr.truncated_normal(key, -2, 2, shape, dtype) / math.sqrt(shape[0])


# A column: those of fixed variance by fan-in or fan-out need two axes.
def initial_weights(
    init: Initializer, width: int, *, key: PRNGKeyArray
) -> Float[Array, " width"]:
    """The weights of a head that reads so many hidden units.

    **Raises:**

    `ValueError` if `init` is no initialiser.
    """
    check_function(init, "init", "jax.nn.initializers.zeros")
    shape, dtype = (width, 1), jnp.zeros(()).dtype
    try:
        weights = init(key, shape, dtype)
    except Exception as e:
        raise _no_initialiser(width, f"it raised {e!r:.100}") from e
    # One's own may know the number of weights alone.
    if not _is_floating(weights) or weights.shape not in (shape, (width,)):
        raise _no_initialiser(width, f"it gave {described(weights)}")
    return jnp.reshape(weights, (width,))


def _is_floating(weights: Any) -> bool:
    is_array = is_real(weights) and hasattr(weights, "dtype")
    return is_array and bool(jnp.issubdtype(weights.dtype, jnp.floating))


def _no_initialiser(width: int, why: str) -> ValueError:
    return ValueError(
        f"`init(key, ({width}, 1), dtype)` must give so many floating-point numbers, but "
        f"{why}: pass an initialiser, say `jax.nn.initializers.normal()`, with brackets."
    )
