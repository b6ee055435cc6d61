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
    """Eleven numbers per tensor, all of order one, whatever its size and scale. Ours.

    In this order, with $n$ the tensor's size and $A_j = m_j R$, $j$ = 1, 2, 3:

    - the number 1;
    - 1 if the tensor has two or more axes, else 0;
    - 1 if it has more than two axes, as kernels of convolutions have, else 0;
    - $\\frac12 \\log_{10} n - 1$;
    - $\\log_{10} rms(p) + 1$, or 0 for vectors and for a tensor that is still zero
        (whose $rms(p)$ is below 1e-7);
    - $\\log_{10} rms(A_j)$ plus 0.3, 0.5 and 0.5 for the three $j$, which show how much of
        the gradients is noise;
    - the cosines between $A_1$ and $A_2$, and between $A_2$ and $A_3$, which show whether
        the descent turns back (0 where the product of both root mean squares is far below
        1e-10);
    - $\\log_{10}(1 + t) / 3.5$, with $t$ the number of updates, up to 3,000.

    $rms(p)$ is clipped to [1e-5, 1e3] and $rms(A_j)$ to [1e-3, 10]. With bias-corrected
    accumulators ([`equistar.BiasCorrection`][]) they mean the same in the first steps as
    later. A tensor without exactly three momenta raises a `ValueError`.
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
        square = means.together(["tensor.p p"])
        squares = means.together([f"tensor.A_{j} A_{j}" for j in range(3)])
        turns = means.together([f"tensor.A_{j} A_{j + 1}" for j in range(2)])
        matrix, kernel = float(p.ndim >= 2), float(p.ndim > 2)
        # Of the count, too: concatenation on an explicit mesh asks the first array for it.
        updates = jnp.log10(1 + jnp.minimum(tensor.count.astype(p.dtype), 3000)) / 3.5
        fixed = jnp.array((1, matrix, kernel, math.log10(p.size) / 2 - 1, 0), p.dtype)
        fixed = fixed + updates * jnp.array((0, 0, 0, 0, 1), p.dtype)
        size = jnp.where(square < 1e-14, 0, _log_root(square, -5.0, 3.0) + 1)
        usual = jnp.array(_USUAL, p.dtype)
        cosines = turns * lax.rsqrt(squares[:-1] * squares[1:] + 1e-20)
        sizes = _log_root(squares, -3.0, 1.0) + usual
        return Inputs(
            tensor=jnp.concatenate([fixed[:4], matrix * size, sizes, cosines, fixed[4:]])
        )


# Minus what the logarithms of the A_j usually are.
_USUAL = 0.3, 0.5, 0.5


def _log_root(square: Array, lowest: float, highest: float) -> Float[Array, "..."]:
    return jnp.clip(jnp.log10(square + 1e-30) / 2, lowest, highest)
