"""Accumulators that are kept in half the memory."""

from typing import Any

import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, Int, UInt

from ._accumulators import AbstractAccumulator
from ._part import asked
from ._tensor import Tensor


class InBFloat16(AbstractAccumulator):
    """Another accumulator, kept in bfloat16 and rounded stochastically.

    A moving average moves by only $1 - b$ of the difference to the new value. bfloat16 has
    128 numbers in a factor of two, so rounding to the nearest would leave an average with
    $b = .999$ where it is. Here a number is rounded up with a probability equal to its
    position between the two neighbours, so that the average is right in the mean. The
    random bits are a hash of the number, its place in the tensor and the update's count, so
    that training remains a function of its key, and numbers that are equal are rounded
    apart. Derivatives are those without rounding.

    !!! Example

        ```python
        bank = star.accumulators
        small = {**bank, "momentum": eqs.InBFloat16(bank["momentum"])}
        star = eqx.tree_at(lambda o: o.accumulators, star, small)
        ```

    ??? cite

        ```bibtex
        @inproceedings{gupta2015deep,
            title={Deep Learning with Limited Numerical Precision},
            author={Gupta, Suyog and Agrawal, Ankur and Gopalakrishnan, Kailash and
                    Narayanan, Pritish},
            booktitle={International Conference on Machine Learning},
            year={2015},
        }
        ```
    """

    accumulator: AbstractAccumulator

    def __init__(self, accumulator: AbstractAccumulator):
        """**Arguments:**

        - `accumulator`: the one to keep in bfloat16, say [`equistar.Momentum`][].
        """
        self.accumulator = accumulator

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.accumulator.reads)

    def init(self, param: Float[Array, "*shape"]) -> tuple[Any, ...]:
        half = lambda x: x.astype(jnp.bfloat16)
        return jtu.tree_map(half, self.accumulator.init(param))

    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        return asked(self.accumulator, tensor)

    def update(self, state: tuple[Any, ...], tensor: Tensor) -> tuple[Any, ...]:
        whole = jtu.tree_map(lambda x: x.astype(tensor.grad.dtype), state)
        new = self.accumulator.update(whole, tensor)
        return jtu.tree_map(lambda x: stochastic_bfloat16(x, tensor.count), new)

    def summarise(self, state: tuple[Any, ...], tensor: Tensor) -> Any:
        return self.accumulator.summarise(state, tensor)


# The number of each entry of an array, from 0.
def _places(shape: tuple[int, ...]) -> UInt[Array, "*shape"]:
    places = jnp.zeros(shape, jnp.uint32)
    for axis, n in enumerate(shape):
        places = places * jnp.uint32(n) + lax.broadcasted_iota(jnp.uint32, shape, axis)
    return places


def stochastic_bfloat16(x: Float[Array, "*shape"], count: Int[Array, ""]) -> Array:
    """`x` rounded up or down to bfloat16, the nearer the likelier: right in the mean."""
    x = x.astype(jnp.float32)
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    hashed = bits ^ (count.astype(jnp.uint32) * jnp.uint32(0x9E3779B9))
    hashed ^= _places(x.shape) * jnp.uint32(0x27D4EB2F)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        hashed = (hashed ^ (hashed >> shift)) * jnp.uint32(factor)
    # A bfloat16 is the upper half of a float32: what carries over from below rounds up.
    rounded = (bits + (hashed & jnp.uint32(0xFFFF))) & jnp.uint32(0xFFFF0000)
    # Both differ in their last digits only: difference and sum are exact (down to 1e-35).
    # No rule of `jax.custom_jvp`, which a scan forgets when it is differentiated twice.
    moved = lax.bitcast_convert_type(rounded, jnp.float32) - lax.stop_gradient(x)
    return (x + jnp.where(jnp.isfinite(x), moved, 0)).astype(jnp.bfloat16)
