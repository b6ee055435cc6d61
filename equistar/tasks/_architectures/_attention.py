"""The block that transformers of images and of text are made of."""

import equinox as eqx
import jax
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..._kinds import check_count


def check_heads(width: int, heads: int) -> None:
    """Raises a `ValueError` unless `heads` heads share `width` features evenly."""
    check_count(width, "width")
    check_count(heads, "heads")
    if width % heads != 0:
        raise ValueError(
            f"`width` must be a multiple of `heads`; got width {width} and {heads} heads."
        )


class Block(eqx.Module):
    """Pre-norm self-attention, then an MLP of 4 times the width; both are residual.

    $$x \\leftarrow x + \\operatorname{attention}(\\operatorname{norm}(x)), \\qquad
    x \\leftarrow x + W_2 \\operatorname{gelu}(W_1 \\operatorname{norm}(x) + b_1) + b_2$$
    """

    attention_norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention
    mlp_norm: eqx.nn.LayerNorm
    expand: eqx.nn.Linear
    contract: eqx.nn.Linear
    causal: bool = eqx.field(static=True)

    def __init__(self, width: int, heads: int, *, causal: bool = False, key: PRNGKeyArray):
        """**Arguments:**

        - `width`: features at each position; a multiple of `heads`.
        - `heads`: of the attention.
        - `causal`: each position sees itself and those before it, not those after.
        - `key`: the weights are drawn with it.
        """
        check_heads(width, heads)
        attention_key, expand_key, contract_key = jr.split(key, 3)
        self.attention_norm = eqx.nn.LayerNorm(width)
        self.attention = eqx.nn.MultiheadAttention(heads, width, key=attention_key)
        self.mlp_norm = eqx.nn.LayerNorm(width)
        self.expand = eqx.nn.Linear(width, 4 * width, key=expand_key)
        self.contract = eqx.nn.Linear(4 * width, width, key=contract_key)
        self.causal = causal

    def __call__(self, x: Float[Array, "length width"]) -> Float[Array, "length width"]:
        mask = jnp.tri(len(x), dtype=bool) if self.causal else None
        y = jax.vmap(self.attention_norm)(x)
        x = x + self.attention(y, y, y, mask=mask)
        return x + jax.vmap(self._mlp)(x)

    def _mlp(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        return self.contract(jnn.gelu(self.expand(self.mlp_norm(x))))
