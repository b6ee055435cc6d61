"""Multi-layer perceptrons."""

import itertools
import math
from collections.abc import Callable

import equinox as eqx
import jax.nn as jnn
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from ..._kinds import as_tuple, check_counts, check_function, check_parts
from ._base import AbstractArchitecture
from ._norm import AbstractNorm, NoNorm


class MLP(AbstractArchitecture):
    """A multi-layer perceptron: linear layers with an activation between them.

    $$h_k = \\phi(\\operatorname{norm}(W_k h_{k-1} + b_k)), \\qquad
    f(x) = W h_K + b, \\qquad h_0 = x$$

    **Attributes:**

    - `hidden`: widths of the hidden layers; without any, this is a linear model, such as
        logistic regression.
    - `activation`: $\\phi$.
    - `norm`: before each activation.

    **Raises:**

    `ValueError` if an attribute is not of its kind.
    """

    hidden: tuple[int, ...] = eqx.field(default=(32, 32), converter=as_tuple, static=True)
    activation: Callable[[Array], Array] = eqx.field(default=jnn.relu, static=True)
    norm: AbstractNorm = NoNorm()

    def __check_init__(self):
        check_counts(self.hidden, "hidden")
        check_function(self.activation, "activation", "jax.nn.relu")
        check_parts(self)

    def build(
        self, in_shape: tuple[int, ...], out_size: int, *, key: PRNGKeyArray
    ) -> eqx.Module:
        shapes = list(itertools.pairwise((math.prod(in_shape), *self.hidden, out_size)))
        keys = jr.split(key, len(shapes))
        layers = [eqx.nn.Linear(*s, key=k) for s, k in zip(shapes, keys, strict=True)]
        norms = [self.norm.build(width) for width in self.hidden]
        return _Perceptron(layers, norms, self.activation)


class _Perceptron(eqx.Module):
    layers: list[eqx.nn.Linear]
    norms: list[eqx.Module]
    activation: Callable[[Array], Array] = eqx.field(static=True)

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, " out"]:
        *hidden, last = self.layers
        x = x.reshape(-1)
        for layer, norm in zip(hidden, self.norms, strict=True):
            x = self.activation(norm(layer(x)))  # pyright: ignore
        return last(x)
