"""Residual networks."""

import itertools

import equinox as eqx
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..._kinds import as_int, as_tuple, check_count, check_counts, check_parts
from ._base import AbstractArchitecture
from ._convolution import Convolution
from ._image import channels_first, image_shape
from ._norm import AbstractNorm, MinibatchNorm


class ResNet(AbstractArchitecture):
    """A shallow residual network: stages of blocks of two 3x3 convolutions each.

    A block is $x \\leftarrow \\operatorname{relu}(s(x) + f(x))$ with
    $f$ = convolution, norm, relu, convolution, norm. The first block of each stage but
    the first halves the image; $s$ is a 1x1 convolution where a block changes the shape,
    else the identity. A 3x3 convolution, norm and relu stand before the blocks; the mean
    over positions and a linear layer follow them.

    ??? cite

        ```bibtex
        @inproceedings{he2016deep,
            title={Deep Residual Learning for Image Recognition},
            author={He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
            booktitle={Conference on Computer Vision and Pattern Recognition},
            year={2016},
        }
        ```

    **Attributes:**

    - `widths`: channels of each stage.
    - `blocks`: in each stage.
    - `norm`: after each 3x3 convolution.

    **Raises:**

    `ValueError` if an attribute is not of its kind, or there are no `widths`; in `build`,
    if inputs are not images.
    """

    widths: tuple[int, ...] = eqx.field(
        default=(16, 32, 64), converter=as_tuple, static=True
    )
    blocks: int = eqx.field(default=1, converter=as_int, static=True)
    norm: AbstractNorm = MinibatchNorm()

    def __check_init__(self):
        check_counts(self.widths, "widths")
        check_count(self.blocks, "blocks")
        check_parts(self)
        if not self.widths:
            raise ValueError("`widths` must have one number for each stage; got none.")

    def build(
        self, in_shape: tuple[int, ...], out_size: int, *, key: PRNGKeyArray
    ) -> eqx.Module:
        first, last = self.widths[0], self.widths[-1]
        # Channels before and after each block; the first of a stage widens.
        widths = [width for width in self.widths for _ in range(self.blocks)]
        pairs = list(itertools.pairwise((first, *widths)))
        halves = [i > 0 and i % self.blocks == 0 for i in range(len(pairs))]
        stem_key, head_key, *keys = jr.split(key, len(pairs) + 2)
        channels = image_shape(in_shape)[2]
        stem = _Normalised(channels, first, 1, self.norm, key=stem_key)
        blocks = [
            _Block(*pair, 2 if half else 1, self.norm, key=k)
            for pair, half, k in zip(pairs, halves, keys, strict=True)
        ]
        return _ResNet(stem, blocks, eqx.nn.Linear(last, out_size, key=head_key))


class _Normalised(eqx.Module):
    convolution: Convolution
    norm: eqx.Module

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        norm: AbstractNorm,
        *,
        key: PRNGKeyArray,
    ):
        self.convolution = Convolution(channels_in, channels_out, 3, stride, key=key)
        self.norm = norm.build(channels_out)

    def __call__(self, x: Float[Array, "channels h w"]) -> Float[Array, "out h2 w2"]:
        return self.norm(self.convolution(x))  # pyright: ignore


class _Block(eqx.Module):
    shortcut: Convolution | eqx.nn.Identity
    first: _Normalised
    second: _Normalised

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        stride: int,
        norm: AbstractNorm,
        *,
        key: PRNGKeyArray,
    ):
        shortcut_key, first_key, second_key = jr.split(key, 3)
        if stride == 1 and channels_in == channels_out:
            self.shortcut = eqx.nn.Identity()
        else:
            self.shortcut = Convolution(
                channels_in, channels_out, 1, stride, key=shortcut_key
            )
        self.first = _Normalised(channels_in, channels_out, stride, norm, key=first_key)
        self.second = _Normalised(channels_out, channels_out, 1, norm, key=second_key)

    def __call__(self, x: Float[Array, "channels h w"]) -> Float[Array, "out h2 w2"]:
        residual = self.second(jnn.relu(self.first(x)))
        return jnn.relu(self.shortcut(x) + residual)


class _ResNet(eqx.Module):
    stem: _Normalised
    blocks: list[_Block]
    head: eqx.nn.Linear

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, " out"]:
        x = jnn.relu(self.stem(channels_first(x)))
        for block in self.blocks:
            x = block(x)
        return self.head(jnp.mean(x, axis=(1, 2)))
