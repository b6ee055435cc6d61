"""The per-element network that reads a tensor's inputs."""

import abc
import itertools
import math
from collections.abc import Callable

import equinox as eqx
import jax.lax as lax
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from .._numerics import mean_squares
from ._features import Inputs


Initializer = Callable[..., Array]


def release_init(key: PRNGKeyArray, shape: tuple[int, ...], dtype=None) -> Array:
    """N(0, 1) truncated to [-2, 2], over the square root of the fan-in `shape[0]`.

    The released implementation's initialiser: not rescaled for the truncation, so the
    standard deviation is 0.880 / sqrt(fan_in).
    """
    dtype = jnp.zeros(()).dtype if dtype is None else dtype
    return jr.truncated_normal(key, -2, 2, shape, dtype) / math.sqrt(shape[0])


class Head(eqx.Module):
    """An affine read-out of the hidden units: one number for each element."""

    weight: Float[Array, " width"]
    bias: Float[Array, ""]

    def __init__(self, width: int, init: Initializer = release_init, *, key: PRNGKeyArray):
        """**Arguments:**

        - `width`: number of hidden units that it reads.
        - `init`: initialiser of the weights, `(key, shape, dtype) -> array`, as in
          `jax.nn.initializers`. The bias starts at zero.
        - `key`: a PRNG key.
        """
        self.weight = init(key, (width,), jnp.zeros(()).dtype)
        self.bias = jnp.zeros(())

    def __call__(self, hidden: tuple[Array, ...]) -> Array:
        """**Arguments:**

        - `hidden`: the hidden units, each an array of the tensor's shape.
        """
        if len(hidden) != self.weight.size:
            raise ValueError(
                f"A head reads {self.weight.size} hidden units but the network has "
                f"{len(hidden)}: build both with the same `width`."
            )
        return sum((self.weight[k] * h for k, h in enumerate(hidden)), self.bias)


class AbstractNetwork(eqx.Module):
    """Maps a tensor's inputs to hidden units, elementwise; parts bring the heads."""

    @abc.abstractmethod
    def normalise(self, inputs: Inputs) -> Float[Array, " inputs"]:
        """The factor that each input is multiplied by before the first layer."""

    @abc.abstractmethod
    def __call__(
        self, inputs: Inputs, scales: Float[Array, " inputs"]
    ) -> tuple[Array, ...]:
        """The hidden units, each an array that broadcasts to the tensor's shape."""


class NoNetwork(AbstractNetwork):
    """No hidden units: for an optimizer without controllers or a blackbox term."""

    def normalise(self, inputs: Inputs) -> Float[Array, " inputs"]:
        return jnp.zeros(0)

    def __call__(
        self, inputs: Inputs, scales: Float[Array, " inputs"]
    ) -> tuple[Array, ...]:
        return ()


class BlackboxMLP(AbstractNetwork):
    """A small multi-layer perceptron with relu, applied to every element alike.

    Each input $x_i$ per element, row or column is first divided by
    $\\sqrt{10^{-5} + mean(x_i^2)}$, the mean taken over the whole tensor. The layers are
    unrolled into scalar arithmetic, so that the whole network is one loop over memory
    and no array of inputs times elements ever exists.
    """

    weights: tuple[Float[Array, "fan_in width"], ...]
    biases: tuple[Float[Array, " width"], ...]

    def __init__(
        self, in_size: int = 39, width: int = 4, depth: int = 2, *, key: PRNGKeyArray
    ):
        """**Arguments:**

        - `in_size`: number of inputs (39 for `AdafactorFeatures`).
        - `width`: hidden units in each layer.
        - `depth`: number of hidden layers.
        - `key`: a PRNG key.
        """
        if min(in_size, width, depth) < 1:
            raise ValueError(
                "BlackboxMLP needs in_size, width and depth of at least 1; got "
                f"{in_size}, {width}, {depth}."
            )
        sizes = [in_size] + [width] * depth
        keys = jr.split(key, depth)
        shapes = itertools.pairwise(sizes)
        self.weights = tuple(release_init(k, s) for k, s in zip(keys, shapes, strict=True))
        self.biases = tuple(jnp.zeros(width) for _ in range(depth))

    def normalise(self, inputs: Inputs) -> Float[Array, " inputs"]:
        squares = [
            *mean_squares(inputs.element),
            *(jnp.mean(x * x) for x in inputs.row + inputs.column),
        ]
        scales = [lax.rsqrt(1e-5 + s) for s in squares]
        return jnp.stack(scales + [jnp.ones_like(self.biases[0][0])] * len(inputs.tensor))

    def __call__(
        self, inputs: Inputs, scales: Float[Array, " inputs"]
    ) -> tuple[Array, ...]:
        if len(inputs) != self.weights[0].shape[0]:
            raise ValueError(
                f"The features give {len(inputs)} inputs but the network was built for "
                f"{self.weights[0].shape[0]}: pass `in_size={len(inputs)}`."
            )
        weight = self.weights[0] * scales[:, None]
        hidden = _relu(_first_layer(weight, self.biases[0], inputs))
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            hidden = _relu(_layer(weight, bias, hidden))
        return hidden


def _relu(units: list[Array]) -> tuple[Array, ...]:
    return tuple(jnn.relu(x) for x in units)


def _layer(
    weight: Float[Array, "fan_in width"],
    bias: Float[Array, " width"],
    inputs: tuple[Array, ...],
) -> list[Array]:
    return [
        sum((weight[i, k] * x for i, x in enumerate(inputs)), bias[k])
        for k in range(weight.shape[1])
    ]


# Inputs smaller than the tensor (rows, columns, scalars) are summed among themselves, at
# their own size; the barrier keeps XLA from doing those sums again for every element. An
# input that occurs twice, as the rows and columns of a vector do, is multiplied once, by
# the sum of its weights.
def _first_layer(
    weight: Float[Array, "inputs width"], bias: Float[Array, " width"], inputs: Inputs
) -> list[Array]:
    by_shape: dict[tuple[int, ...], dict[int, tuple[Array, Array]]] = {}
    for i, x in enumerate(inputs.element + inputs.row + inputs.column + inputs.tensor):
        group = by_shape.setdefault(x.shape, {})
        _, shared = group.get(id(x), (x, 0))
        group[id(x)] = (x, weight[i] + shared)
    units = list(bias)
    largest = max(by_shape, key=math.prod)
    for shape in sorted(by_shape, key=lambda s: (math.prod(s), len(s))):
        products = [
            sum(row[k] * x for x, row in by_shape[shape].values())
            for k in range(len(units))
        ]
        products = products if shape == largest else lax.optimization_barrier(products)
        units = [u + p for u, p in zip(units, products, strict=True)]
    return units
