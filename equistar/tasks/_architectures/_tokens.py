"""Tokens as architectures of sequences take them."""

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped


def checked_length(in_shape: tuple[int, ...]) -> int:
    """How many tokens an input has; a `ValueError` if it is no row of them."""
    if len(in_shape) != 1:
        raise ValueError(_refusal(f"shape {in_shape}"))
    return in_shape[0]


def checked_tokens(x: Shaped[Array, "..."]) -> Int[Array, " length"]:
    """The input itself; a `ValueError` if it is no row of tokens."""
    if x.ndim != 1 or not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(_refusal(f"shape {x.shape} and dtype {x.dtype}"))
    return x


def _refusal(got: str) -> str:
    return (
        f"Inputs must be tokens, whole numbers in a row; got {got}. Use "
        "`LanguageModelling`, or choose an architecture for numbers such as `MLP`."
    )
