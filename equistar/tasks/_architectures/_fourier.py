"""Perceptrons of coordinates."""

import math
from collections.abc import Callable

import equinox as eqx
import jax.nn as jnn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..._kinds import as_int, as_tuple, check_count, check_counts, check_function
from ._base import AbstractArchitecture
from ._mlp import MLP


class FourierMLP(AbstractArchitecture):
    """A multi-layer perceptron whose inputs are sines and cosines of its coordinates.

    $$f(x) = \\operatorname{MLP}(\\gamma(x)), \\qquad
    \\gamma(x) = (x,\\ \\sin 2^k \\pi x,\\ \\cos 2^k \\pi x)_{k = 0, \\dots, K - 1}$$

    A perceptron on the coordinates themselves learns fine detail very slowly.

    **Attributes:**

    - `hidden`: widths of the hidden layers.
    - `octaves`: $K$.
    - `activation`: after each hidden layer.

    **Raises:**

    `ValueError` if an attribute is not of its kind.

    ??? cite

        ```bibtex
        @inproceedings{mildenhall2020nerf,
            title={{NeRF}: Representing Scenes as Neural Radiance Fields for View
                   Synthesis},
            author={Mildenhall, Ben and Srinivasan, Pratul P. and Tancik, Matthew and
                    Barron, Jonathan T. and Ramamoorthi, Ravi and Ng, Ren},
            booktitle={European Conference on Computer Vision},
            year={2020},
            eprint={2003.08934},
        }
        ```
    """

    hidden: tuple[int, ...] = eqx.field(default=(32, 32), converter=as_tuple, static=True)
    octaves: int = eqx.field(default=4, converter=as_int, static=True)
    activation: Callable[[Array], Array] = eqx.field(default=jnn.relu, static=True)

    def __check_init__(self):
        check_counts(self.hidden, "hidden")
        check_count(self.octaves, "octaves")
        check_function(self.activation, "activation", "jax.nn.relu")

    def build(
        self, in_shape: tuple[int, ...], out_size: int, *, key: PRNGKeyArray
    ) -> eqx.Module:
        waves = (math.prod(in_shape) * (1 + 2 * self.octaves),)
        mlp = MLP(self.hidden, self.activation).build(waves, out_size, key=key)
        return _Fourier(mlp, self.octaves)


class _Fourier(eqx.Module):
    mlp: eqx.Module
    octaves: int = eqx.field(converter=as_int, static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, " out"]:
        x = x.reshape(-1)
        phases = [math.pi * 2**k * x for k in range(self.octaves)]
        waves = [f(phase) for phase in phases for f in (jnp.sin, jnp.cos)]
        return self.mlp(jnp.concatenate([x, *waves]))  # pyright: ignore
