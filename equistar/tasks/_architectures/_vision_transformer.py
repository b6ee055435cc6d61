"""Vision transformers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..._kinds import as_int, check_count
from ._attention import Block, check_heads
from ._base import AbstractArchitecture
from ._image import image_shape


class VisionTransformer(AbstractArchitecture):
    """A pre-norm transformer on the square patches of an image.

    Patches are embedded linearly and added to learned positions; after the blocks come
    a layer norm, the mean over patches and a linear layer.

    ??? cite

        ```bibtex
        @inproceedings{dosovitskiy2021image,
            title={An Image is Worth 16x16 Words: Transformers for Image Recognition
                   at Scale},
            author={Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and
                    Weissenborn, Dirk and Zhai, Xiaohua and Unterthiner, Thomas and
                    Dehghani, Mostafa and Minderer, Matthias and Heigold, Georg and
                    Gelly, Sylvain and Uszkoreit, Jakob and Houlsby, Neil},
            booktitle={International Conference on Learning Representations},
            year={2021},
        }
        ```

    **Attributes:**

    - `patch`: side of the patches; height and width of the images are multiples of it.
    - `width`: features at each patch; a multiple of `heads`.
    - `depth`: number of blocks.
    - `heads`: of each block's attention.

    **Raises:**

    `ValueError` if an attribute is below 1, or `width` is not a multiple of `heads`; in
    `build`, if inputs are not images that `patch` divides.
    """

    patch: int = eqx.field(default=4, converter=as_int, static=True)
    width: int = eqx.field(default=64, converter=as_int, static=True)
    depth: int = eqx.field(default=4, converter=as_int, static=True)
    heads: int = eqx.field(default=4, converter=as_int, static=True)

    def __check_init__(self):
        check_heads(self.width, self.heads)
        check_count(self.patch, "patch")
        check_count(self.depth, "depth")

    def build(
        self, in_shape: tuple[int, ...], out_size: int, *, key: PRNGKeyArray
    ) -> eqx.Module:
        height, width, channels = image_shape(in_shape)
        if height % self.patch != 0 or width % self.patch != 0:
            raise ValueError(
                f"Images of {height}x{width} do not divide into patches of side "
                f"{self.patch}: choose a `patch` that divides both {height} and {width}."
            )
        length = (height // self.patch) * (width // self.patch)
        embed_key, position_key, head_key, *keys = jr.split(key, self.depth + 3)
        return _VisionTransformer(
            eqx.nn.Linear(self.patch**2 * channels, self.width, key=embed_key),
            0.02 * jr.normal(position_key, (length, self.width)),
            [Block(self.width, self.heads, key=k) for k in keys],
            eqx.nn.LayerNorm(self.width),
            eqx.nn.Linear(self.width, out_size, key=head_key),
            self.patch,
        )


class _VisionTransformer(eqx.Module):
    embed: eqx.nn.Linear
    positions: Float[Array, "length width"]
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear
    patch: int = eqx.field(converter=as_int, static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, " out"]:
        x = jax.vmap(self.embed)(_patches(x, self.patch)) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(jax.vmap(self.norm)(x), axis=0))


def _patches(x: Float[Array, "..."], side: int) -> Float[Array, "length numbers"]:
    height, width, channels = image_shape(x.shape)
    rows, columns = height // side, width // side
    x = x.reshape(rows, side, columns, side, channels).transpose(0, 2, 1, 3, 4)
    return x.reshape(rows * columns, -1)
