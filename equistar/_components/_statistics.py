"""Inputs per tensor: what a whole tensor says of the step that it can take."""

import math
from typing import ClassVar

import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._features import AbstractFeatures
from ._inputs import Inputs
from ._tensor import Tensor


class TensorStatistics(AbstractFeatures):
    """Eleven numbers of a tensor, all of order one, whatever its size and scale.

    A one; whether it is a matrix; whether it has more than two axes, as the kernels of
    convolutions, whose every entry acts at many places; half the logarithm of its size;
    the logarithm of a matrix's root mean square, unless it is still zero; those of
    $A_j = m_j R$ for the three momenta, which say how much of the gradients is noise; the
    cosines between $A_1$ and $A_2$ and between $A_2$ and $A_3$, which say whether the
    descent turns back; and the logarithm of the number of updates, up to 3,000. All
    logarithms are decimal, clipped, and zero for what is usual.

    Bias-corrected accumulators ([`equistar.BiasCorrection`][]) make them mean the same in
    the first steps as later.
    """

    reads: ClassVar[tuple[str, ...]] = ("momentum", "second_moment")

    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        number = len(tensor.momentum)
        if number != 3:
            raise ValueError(
                f"TensorStatistics reads three momenta; got {number}: use a `Momentum` "
                "with three decays."
            )
        return tensor.products

    def __call__(self, tensor: Tensor) -> Inputs:
        p, means = tensor.param, self.means(tensor)
        square = means["tensor.p p"]
        squares = jnp.stack([means[f"tensor.A_{j} A_{j}"] for j in range(3)])
        turns = jnp.stack([means[f"tensor.A_{j} A_{j + 1}"] for j in range(2)])
        matrix = jnp.asarray(p.ndim >= 2, p.dtype)
        kernel = jnp.asarray(p.ndim > 2, p.dtype)
        size = jnp.asarray(math.log10(p.size) / 2 - 1, p.dtype)
        updates = jnp.log10(1 + jnp.minimum(tensor.count.astype(p.dtype), 3000)) / 3.5
        cosines = turns * lax.rsqrt(squares[:-1] * squares[1:] + 1e-20)
        return Inputs(
            tensor=(
                jnp.ones((), p.dtype),
                matrix,
                kernel,
                size,
                matrix * jnp.where(square < 1e-14, 0, _log_root(square, -5.0, 3.0) + 1),
                *(_log_root(squares, -3.0, 1.0) + jnp.asarray(_USUAL, p.dtype)),
                *cosines,
                updates,
            )
        )


# Minus what the logarithms of the A_j usually are.
_USUAL = 0.3, 0.5, 0.5


def _log_root(square: Array, lowest: float, highest: float) -> Float[Array, "..."]:
    return jnp.clip(jnp.log10(square + 1e-30) / 2, lowest, highest)
