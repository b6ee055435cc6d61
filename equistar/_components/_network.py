"""The per-element network that reads a tensor's inputs."""

import abc
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, Float, PRNGKeyArray

from .._kinds import as_count, check_key
from .._lowering import batch_first, by_device, unstack
from .._numerics import inverse_root
from ._initializer import initial_weights, Initializer, release_init
from ._inputs import are_elements, as_stack, check_inputs, Inputs, mean_squares


class Head(eqx.Module):
    """An affine read-out of the hidden units, $w \\cdot h + b$: one number per element."""

    weight: Float[Array, " width"]
    bias: Float[Array, ""]

    def __init__(self, width: int, init: Initializer = release_init, *, key: PRNGKeyArray):
        """**Arguments:**

        - `width`: number of hidden units that it reads.
        - `init`: initialiser of the weights, `(key, shape, dtype) -> array`, as in
          `jax.nn.initializers`, for the shape (width, 1). The bias starts at zero.
        - `key`: a PRNG key.

        **Raises:** `ValueError` if an argument is not of its kind.
        """
        width = as_count(width, "width")
        check_key(key)
        self.weight = initial_weights(init, width, key=key)
        self.bias = jnp.zeros(())

    def __call__(self, hidden: tuple[Array, ...]) -> Array:
        """**Arguments:**

        - `hidden`: the hidden units, each an array of the tensor's shape.

        **Returns:** the read-out, an array of that shape.

        **Raises:** `ValueError` if there are not as many as weights.
        """
        if len(hidden) != self.weight.size:
            raise ValueError(
                f"A head reads {self.weight.size} hidden units but the network has "
                f"{len(hidden)}: build both with the same `width`."
            )
        return _affine((self.weight[:, None], (self.bias[None],)), hidden)[0]


class AbstractNetwork(eqx.Module):
    """Maps a tensor's inputs to hidden units, elementwise. The parts add the heads."""

    @abc.abstractmethod
    def normalise(self, inputs: Inputs) -> Float[Array, " normalised"]:
        """The factors that inputs are multiplied by before the first layer.

        One for each input per element, row and column, in this order.
        """

    @abc.abstractmethod
    def __call__(
        self, inputs: Inputs, scales: Float[Array, " normalised"]
    ) -> tuple[Array, ...]:
        """The hidden units, each an array that broadcasts to the tensor's shape."""


class NoNetwork(AbstractNetwork):
    """No hidden units: for an optimizer without controllers or a blackbox term."""

    def normalise(self, inputs: Inputs) -> Float[Array, " normalised"]:
        return jnp.zeros(0)

    def __call__(
        self, inputs: Inputs, scales: Float[Array, " normalised"]
    ) -> tuple[Array, ...]:
        return ()


class BlackboxMLP(AbstractNetwork):
    """A small multi-layer perceptron with relu, applied to every element alike.

    Each input $x_i$ per element, row or column is first divided by
    $\\sqrt{10^{-5} + mean(x_i^2)}$, the mean taken over the whole tensor. Layers of up to
    eight units are unrolled into scalar arithmetic, so that the whole network is one loop
    over memory and no array of inputs times elements ever exists. Wider layers are products
    of matrices, which need memory for as many arrays of the tensor's size as there are
    inputs and units. See [`equistar.Blackbox`][] for the source. Features that do not give
    `in_size` inputs raise a `ValueError`.

    **Attributes:**

    - `weights`: a matrix for each layer. The rows of the first one are in the order of
        [`equistar.Inputs`][]: the inputs per element, per row, per column, and of the whole
        tensor, each kind as the features give it.
    - `biases`: a vector for each layer.
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

        **Raises:**

        `ValueError` if `in_size`, `width` or `depth` is below 1.
        """
        in_size = as_count(in_size, "in_size")
        width = as_count(width, "width")
        depth = as_count(depth, "depth")
        sizes = [in_size] + [width] * depth
        check_key(key)
        keys = jr.split(key, depth)
        shapes = itertools.pairwise(sizes)
        self.weights = tuple(release_init(k, s) for k, s in zip(keys, shapes, strict=True))
        self.biases = tuple(jnp.zeros(width) for _ in range(depth))

    def normalise(self, inputs: Inputs) -> Float[Array, " normalised"]:
        check_inputs(inputs)
        return inverse_root(1e-5 + mean_squares(inputs))

    def __call__(
        self, inputs: Inputs, scales: Float[Array, " normalised"]
    ) -> tuple[Array, ...]:
        if len(inputs) != self.weights[0].shape[0]:
            raise ValueError(
                f"The features give {len(inputs)} inputs but the network was built for "
                f"{self.weights[0].shape[0]}: pass `in_size={len(inputs)}`."
            )
        weight, bias = self.weights[0], self.biases[0]
        # Apart, since most of these are the same for all tensors.
        if len(inputs.tensor):
            bias = bias + _mix(weight[scales.size :], inputs.tensor)
        weight = weight[: scales.size] * scales[:, None]
        first, elements = _first_layer(weight, bias, inputs)
        others = zip(self.weights[1:], self.biases[1:], strict=True)
        layers = [first, *((w, (b,)) for w, b in others)]
        if max(w.shape[1] for w in self.weights) <= _FUSED_WIDTH:
            return _perceptron(layers, elements)
        return tuple(unstack(_stacked_perceptron(layers, _side_by_side(elements, weight))))


# Scalar arithmetic for wider layers takes the compiler minutes, and gigabytes.
_FUSED_WIDTH = 8


# Of one layer: the weights, and the biases as one or more stacks, one bias for each unit,
# that broadcast to the tensor's shape and are to be added.
_Layer = tuple[Array, Sequence[Array]]


# Two forms of one function. The first is scalar arithmetic that XLA fuses with what comes
# before and after it: no array of inputs times elements exists. The second is what is
# differentiated: there the slope of each weight is a sum over the tensor, and of hundreds
# of sums over fused arithmetic the compiler makes as many copies of that arithmetic. JAX
# takes the axis of a batch in what the second gives to be where the first has it
# (jax-ml/jax#16374): in both it is the first one.


@jax.custom_jvp
def _affine(layer: _Layer, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    weight, biases = layer
    units = []
    for k in range(weight.shape[1]):
        terms = [b[k] for b in biases] + [weight[i, k] * x for i, x in enumerate(inputs)]
        # Two sums, neither of which waits for the other's additions.
        n = (len(terms) + 1) // 2
        units.append(_total([_total(half) for half in (terms[:n], terms[n:]) if half]))
    return tuple(map(batch_first, units))


@jax.custom_jvp
def _perceptron(layers: list[_Layer], inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    for layer in layers:
        # One instruction, and unlike `maximum(x, 0)` it keeps a NaN at no cost.
        inputs = tuple(jnp.where(x < 0, 0, x) for x in _affine(layer, inputs))
    return tuple(map(batch_first, inputs))


def _side_by_side(xs: tuple[Array, ...], like: Array) -> Array:
    return jnp.stack(xs) if xs else jnp.zeros((0,), like.dtype)


def _total(terms: list[Array]) -> Array:
    return sum(terms[1:], terms[0])


def _stacked_affine(layer: _Layer, inputs: Array) -> Array:
    weight, biases = layer
    terms = [_product(weight, inputs), *biases]
    ndim = max(x.ndim for x in terms)
    spread = [x.reshape(*x.shape, *(1,) * (ndim - x.ndim)) for x in terms]
    return sum(spread[1:], spread[0])


def _stacked_perceptron(layers: list[_Layer], inputs: Array) -> Array:
    for layer in layers:
        inputs = jax.nn.relu(_stacked_affine(layer, inputs))
    return inputs


def _differentiated_as(stacked: Callable[[Any, Array], Array]) -> Callable:
    def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
        def form(layers: Any, xs: tuple[Array, ...]) -> tuple[Array, ...]:
            weight = jtu.tree_leaves(layers)[0]
            return tuple(unstack(stacked(layers, _side_by_side(xs, weight))))

        return jax.jvp(form, primals, tangents)

    return rule


_affine.defjvp(_differentiated_as(_stacked_affine))
_perceptron.defjvp(_differentiated_as(_stacked_perceptron))


# Inputs smaller than the tensor (rows, columns, numbers) are summed among themselves, at
# their own size, as products of matrices: those XLA does not fuse into the loop over the
# elements, where they would be computed again for each. The rows and columns of a vector
# are elements, and the same ones: multiplied once, by the sum of their weights.
def _first_layer(
    weight: Float[Array, "inputs width"], bias: Float[Array, " width"], inputs: Inputs
) -> tuple[_Layer, tuple[Array, ...]]:
    kinds = (inputs.element, inputs.row, inputs.column)
    ends = list(itertools.accumulate(map(len, kinds)))
    of_element, of_row, of_column = jnp.split(weight, ends[:-1])
    stacks = [(inputs.row, of_row), (inputs.column, of_column)]
    if inputs.row is inputs.column:
        stacks = [(inputs.row, of_row + of_column)]
    elements, small = inputs.element, []
    for stack, w in stacks:
        if are_elements(stack, inputs):
            elements += tuple(jnp.broadcast_to(x, elements[0].shape) for x in stack)
            of_element = jnp.concatenate([of_element, w])
        elif len(stack):
            small.append((w, as_stack(stack)))
    return (of_element, _biases(bias, small)), elements


def _product(weight: Float[Array, "inputs width"], xs: Array) -> Float[Array, "width ..."]:
    return jnp.tensordot(weight, xs, (0, 0), precision=lax.Precision.HIGHEST)


def _sums(weight: Float[Array, "inputs width"], xs: Array) -> Float[Array, "width ..."]:
    columns = weight.reshape(*weight.shape, *(1,) * (xs.ndim - 1))
    terms = zip(unstack(columns), unstack(xs), strict=True)
    return _total([w * x[None] for w, x in terms])


def _products_and_bias(bias: Float[Array, " width"], stacks: list[Any]) -> list[Array]:
    return [bias, *(_product(w, xs) for w, xs in stacks)]


# On a GPU a product takes a kernel more, to join what is multiplied, and so does the bias:
# in its own place there is zero. XLA for CPU fuses sums with what reads them in spite of
# the barrier.
def _sums_with_bias(bias: Float[Array, " width"], stacks: list[Any]) -> list[Array]:
    if not stacks:
        return [bias]
    first, *others = (_sums(w, xs) for w, xs in stacks)
    first = first + bias.reshape(-1, *(1,) * (first.ndim - 1))
    return [jnp.zeros_like(bias), *lax.optimization_barrier([first, *others])]


_mix = by_device(_product, cuda=_sums, rocm=_sums)
_biases = by_device(_products_and_bias, cuda=_sums_with_bias, rocm=_sums_with_bias)
