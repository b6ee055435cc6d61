"""Decoder-only transformers."""

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..._kinds import as_int, check_count
from ._attention import Block, check_heads
from ._base import AbstractArchitecture
from ._tokens import checked_length, checked_tokens


class Transformer(AbstractArchitecture):
    """A causal, pre-norm transformer of tokens with learned positions, read out linearly.

    $$x \\leftarrow x + \\operatorname{attention}(\\operatorname{norm}(x)), \\qquad
    x \\leftarrow x + W_2 \\operatorname{gelu}(W_1 \\operatorname{norm}(x) + b_1) + b_2$$

    in each block, from $x_t = E_{w_t} + P_t$ for the token $w_t$ at position $t$. Each
    position attends to itself and to those before it. The scores of the next token are
    $W \\operatorname{norm}(x_t) + b$.

    **Attributes:**

    - `depth`: number of blocks of self-attention and an MLP of 4 times the width.
    - `width`: features at each position; a multiple of `heads`.
    - `heads`: of the attention.

    The defaults are the STAR paper's, which has 20.3M parameters with 32,000 tokens and
    windows of 128.

    **Raises:**

    `ValueError` if an attribute is below 1, or `width` is not a multiple of `heads`.

    ??? cite

        ```bibtex
        @inproceedings{vaswani2017attention,
            title={Attention Is All You Need},
            author={Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit,
                    Jakob and Jones, Llion and Gomez, Aidan N. and Kaiser, Lukasz and
                    Polosukhin, Illia},
            booktitle={Advances in Neural Information Processing Systems},
            year={2017},
            eprint={1706.03762},
        }
        ```
    """

    depth: int = eqx.field(default=5, converter=as_int, static=True)
    width: int = eqx.field(default=256, converter=as_int, static=True)
    heads: int = eqx.field(default=8, converter=as_int, static=True)

    def __check_init__(self):
        check_heads(self.width, self.heads)
        check_count(self.depth, "depth")

    def build(
        self, in_shape: tuple[int, ...], out_size: int, *, key: PRNGKeyArray
    ) -> eqx.Module:
        embed_key, position_key, block_key, out_key = jr.split(key, 4)
        length = checked_length(in_shape)
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
