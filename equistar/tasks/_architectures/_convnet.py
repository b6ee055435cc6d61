"""Convolutional networks."""

import itertools
from collections.abc import Callable

import equinox as eqx
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..._kinds import (
    as_int,
    as_tuple,
    check_count,
    check_counts,
    check_function,
    check_parts,
)
from ._base import AbstractArchitecture
from ._convolution import Convolution
from ._image import channels_first, image_shape
from ._norm import AbstractNorm, NoNorm


class ConvNet(AbstractArchitecture):
    """Convolutions with SAME padding, the mean over positions, and a linear layer.

    Each convolution is followed by the norm and the activation. The default is the
    network that the optimizers of Harrison et al. are meta-trained on, on CIFAR-10.

    ??? cite

        ```bibtex
        @inproceedings{harrison2022closer,
            title={A Closer Look at Learned Optimization: Stability, Robustness, and
                   Inductive Biases},
            author={Harrison, James and Metz, Luke and Sohl-Dickstein, Jascha},
            booktitle={Advances in Neural Information Processing Systems},
            year={2022},
            eprint={2209.11208},
        }
        ```

    **Attributes:**

    - `channels`: output channels of each convolution.
    - `strides`: of each convolution.
    - `kernel`: side of the square kernels, in pixels.
    - `activation`: after each convolution.
    - `norm`: before each activation.

    **Raises:**

    `ValueError` if an attribute is not of its kind, or `channels` and `strides` are not
    equally long; in `build`, if inputs are not images.
    """

    channels: tuple[int, ...] = eqx.field(
        default=(32, 64, 64), converter=as_tuple, static=True
    )
    strides: tuple[int, ...] = eqx.field(default=(2, 1, 1), converter=as_tuple, static=True)
    kernel: int = eqx.field(default=3, converter=as_int, static=True)
    activation: Callable[[Array], Array] = eqx.field(default=jnn.relu, static=True)
    norm: AbstractNorm = NoNorm()

    def __check_init__(self):
        check_counts(self.channels, "channels")
        check_counts(self.strides, "strides")
        check_count(self.kernel, "kernel")
        check_function(self.activation, "activation", "jax.nn.relu")
        check_parts(self)
        if len(self.channels) != len(self.strides) or not self.channels:
            raise ValueError(
                "`channels` and `strides` must be equally long, one of each for every "
                f"convolution; got {self.channels} and {self.strides}."
            )

    def build(
        self, in_shape: tuple[int, ...], out_size: int, *, key: PRNGKeyArray
    ) -> eqx.Module:
        *keys, head_key = jr.split(key, len(self.channels) + 1)
        pairs = itertools.pairwise((image_shape(in_shape)[2], *self.channels))
        convolutions = [
            Convolution(*pair, self.kernel, stride, key=k)
            for pair, stride, k in zip(pairs, self.strides, keys, strict=True)
        ]
        norms = [self.norm.build(channels) for channels in self.channels]
        head = eqx.nn.Linear(self.channels[-1], out_size, key=head_key)
        return _ConvNet(convolutions, norms, head, self.activation)


class _ConvNet(eqx.Module):
    convolutions: list[Convolution]
    norms: list[eqx.Module]
    head: eqx.nn.Linear
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, " out"]:
        x = channels_first(x)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.activation(norm(convolution(x)))  # pyright: ignore
        return self.head(jnp.mean(x, axis=(1, 2)))
