"""Decoder-only transformers."""

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..._kinds import check_count
from ._attention import Block, check_heads
from ._base import AbstractArchitecture
from ._tokens import checked_tokens


class Transformer(AbstractArchitecture):
    """A causal, pre-norm transformer of tokens with learned positions, read out linearly.

    **Attributes:**

    - `depth`: number of blocks of self-attention and an MLP of 4 times the width.
    - `width`: features at each position; a multiple of `heads`.
    - `heads`: of the attention.

    The defaults are the paper's, which has 20.3M parameters with 32,000 tokens and windows
    of 128.
    """

    depth: int = eqx.field(default=5, static=True)
    width: int = eqx.field(default=256, static=True)
    heads: int = eqx.field(default=8, static=True)

    def __check_init__(self):
        check_heads(self.width, self.heads)
        check_count(self.depth, "depth")

    def build(
        self, in_shape: tuple[int, ...], out_size: int, *, key: PRNGKeyArray
    ) -> eqx.Module:
        embed_key, position_key, block_key, out_key = jr.split(key, 4)
        (length,) = in_shape
        block_keys = jr.split(block_key, self.depth)
        return _Decoder(
            0.02 * jr.normal(embed_key, (out_size, self.width)),
            0.02 * jr.normal(position_key, (length, self.width)),
            [Block(self.width, self.heads, causal=True, key=k) for k in block_keys],
            eqx.nn.LayerNorm(self.width),
            eqx.nn.Linear(self.width, out_size, key=out_key),
        )


class _Decoder(eqx.Module):
    embedding: Float[Array, "vocabulary width"]
    positions: Float[Array, "length width"]
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    readout: eqx.nn.Linear

    def __call__(self, tokens: Int[Array, " length"]) -> Float[Array, "length vocabulary"]:
        x = self.embedding[checked_tokens(tokens)] + self.positions
        for block in self.blocks:
            x = block(x)
        return jax.vmap(lambda x: self.readout(self.norm(x)))(x)
