"""Convolutions that many particles can run at once."""

import itertools

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


class Convolution(eqx.Module):
    """`equinox.nn.Conv2d` with SAME padding, computed as a product of matrices.

    Mapped over particles, each with weights of its own, a convolution becomes a grouped
    one. For small images on a CPU that takes some ten times as long as this product; for
    one particle on large images the product takes twice as long as a convolution.
    """

    convolution: eqx.nn.Conv2d

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int,
        *,
        key: PRNGKeyArray,
    ):
        self.convolution = eqx.nn.Conv2d(
            in_channels, out_channels, kernel, stride, padding="SAME", key=key
        )

    def __call__(self, x: Float[Array, "channels h w"]) -> Float[Array, "out h2 w2"]:
        weight, bias = self.convolution.weight, self.convolution.bias
        out, _, side, _ = weight.shape
        patches = _patches(x, side, self.convolution.stride[0])
        y = weight.reshape(out, -1) @ patches.reshape(-1, patches[0, 0].size)
        return y.reshape(out, *patches.shape[2:]) + bias  # pyright: ignore


def _patches(
    x: Float[Array, "channels h w"], side: int, stride: int
) -> Float[Array, "channels positions h2 w2"]:
    """What each output position sees: the padded image, shifted to each kernel position."""
    shape = x.shape[1:]
    pads = lax.padtype_to_pads(shape, (side, side), (stride, stride), "SAME")
    x = jnp.pad(x, ((0, 0), *pads))
    rows, columns = (stride * (-(-n // stride) - 1) + 1 for n in shape)
    shifts = itertools.product(range(side), repeat=2)
    return jnp.stack(
        [x[:, i : i + rows : stride, j : j + columns : stride] for i, j in shifts], axis=1
    )
