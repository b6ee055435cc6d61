"""Tokens as architectures of sequences take them."""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped


def checked_tokens(x: Shaped[Array, "..."]) -> Int[Array, " length"]:
    """The input itself; a `ValueError` if it is no row of tokens."""
    if x.ndim != 1 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(
            "Inputs must be tokens, whole numbers in a row; got shape "
            f"{x.shape} and dtype {x.dtype}. Use `LanguageModelling`, or choose an "
            "architecture for numbers such as `MLP`."
        )
    return x
