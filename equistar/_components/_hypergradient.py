"""A step size that is learned while a network is trained."""

from typing import Any, ClassVar

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kinds import as_number, as_steps
from .._lowering import varying_as
from .._numerics import accumulator_dtype
from ._accumulators import AbstractAccumulator
from ._features import AbstractFeatures
from ._inputs import Inputs
from ._tensor import Tensor


# The square of a cosine that is no noise, however many entries there are.
_SIGNIFICANT = 0.003

_MEANS = "g d", "g g", "d d", "v"


class HypergradientDescent(AbstractAccumulator):
    """The logarithm of a tensor's step size, learned while the network is trained.

    $$s \\leftarrow s + \\eta_t\\,\\Big(c - \\frac{\\tau}{1 + c^2 / (0.003 + 4 / n)}\\Big)
    - [r > 2] \\ln \\frac{1 + r}{2}, \\qquad c = \\cos(g, d), \\quad
    r = -c\\,\\frac{rms(g)}{\\sqrt{mean(v)}}$$

    with $\\eta_t = \\eta \\min(1, t_0 / t)$, $n$ the tensor's size, and $d = mean_j\\,A_j$
    and $v$ of the update before.

    *The first term.* Up to a positive factor, $-c$ is the derivative of the new minibatch's
    loss with respect to the logarithm of the last step's size. While gradients still point
    along the last direction, steps grow. When they turn back, because steps overshoot or
    follow noise, steps shrink. A positive $\\tau$ makes steps shrink unless the gradients
    agree by at least that much. This decay needs no horizon: after $t_0$ updates the rate
    falls as in stochastic approximation, and the step size as a power of the time. It helps
    only where there is noise. Cosines between random directions in $n$ dimensions have the
    mean square $1 / n$; beyond twice such a cosine the threshold falls.

    *The last term* is for steps that overshoot so far that gradients grow. Suppose that the
    slope along the step was of the usual size before it and is $-r$ times that after it. A
    parabola through both has its minimum at $1 / (1 + r)$ of the step, and steps of more
    than twice that raise the loss. Noise alone seldom makes $r$ more than 2; beyond that,
    the step size is cut to twice the minimum at once. Otherwise training can leave a narrow
    valley, along which steps have grown, for good. Averages should be bias-corrected
    ([`equistar.BiasCorrection`][]), or the first updates look like overshoots.

    Where a gradient is zero, nothing changes. The logarithm is clipped to [-9, 7].

    It stores one number per tensor and needs one more pass over memory. Rate and threshold
    are meta-learned, through unconstrained offsets: $\\eta = \\eta_{init}
    \\exp(10\\,\\theta_\\eta)$, and likewise $\\tau$. After the source below; the threshold
    and the last term are ours.

    ??? cite

        ```bibtex
        @inproceedings{baydin2018online,
            title={Online Learning Rate Adaptation with Hypergradient Descent},
            author={Baydin, Atilim Gunes and Cornish, Robert and Mart{\\'i}nez Rubio,
                    David and Schmidt, Mark and Wood, Frank},
            booktitle={International Conference on Learning Representations},
            year={2018},
        }
        ```
    """

    reads: ClassVar[tuple[str, ...]] = ("momentum", "second_moment")
    bounds: ClassVar[tuple[float, float]] = (-9.0, 7.0)

    offsets: Float[Array, "2"]
    rate: float = eqx.field(static=True)
    threshold: float = eqx.field(static=True)
    burn_in: int = eqx.field(static=True)

    def __init__(self, rate: float = 0.2, threshold: float = 0.02, burn_in: int = 100):
        """**Arguments:**

        - `rate`: the initial $\\eta$, positive.
        - `threshold`: the initial $\\tau$, of either sign; zero stays zero.
        - `burn_in`: $t_0$, the number of updates at the full rate.

        **Raises:**

        `ValueError` if `rate` is not positive and finite, `threshold` not in [-1, 1], or
        `burn_in` not a whole number of at least 1.
        """
        self.rate = as_number(rate, "`rate`", "0.2")
        self.threshold = as_number(threshold, "`threshold`", "0.02")
        if not 0 < self.rate < float("inf") or not -1 <= self.threshold <= 1:
            raise ValueError(
                "`rate` must be positive and `threshold` between -1 and 1; got "
                f"{rate} and {threshold}."
            )
        self.burn_in = as_steps(burn_in, "burn_in")
        self.offsets = jnp.zeros(2)

    def init(self, param: Float[Array, "*shape"]) -> tuple[Any, ...]:
        return (varying_as(param, jnp.zeros((), accumulator_dtype(param.dtype))),)

    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        g, a = tensor.grad, tensor.normalised_momentum
        d = sum(a[1:], a[0]) / len(a)
        return dict(zip(_MEANS, (g * d, g * g, d * d, tensor.second_moment), strict=True))

    def update(self, state: tuple[Any, ...], tensor: Tensor) -> tuple[Any, ...]:
        # Numbers side by side: XLA makes a kernel of each that it computes alone.
        numbers = self.means(tensor).together(_MEANS)
        there = jnp.all(numbers[1:] > 0)
        squares = jnp.where(there, numbers[1:], 1)
        per_grad, per_direction, per_usual = lax.rsqrt(squares)
        cosine = numbers[0] * per_grad * per_direction
        eta, tau = jnp.exp(10 * self.offsets) * jnp.array(
            (self.rate, self.threshold), self.offsets.dtype
        )
        updates = tensor.count.astype(eta.dtype) + 1
        eta = eta * jnp.minimum(1, self.burn_in / updates)
        noise = _SIGNIFICANT + 4 / tensor.grad.size
        tau = tau / (1 + cosine * cosine / noise)
        # Not through the cosine: the square of a gradient may overflow.
        turned = -numbers[0] * per_direction * per_usual
        too_long = jnp.where(turned > 2, jnp.log((1 + jnp.maximum(turned, 2)) / 2), 0)
        change = jnp.where(there, eta * (cosine - tau) - too_long, 0)
        return (jnp.clip(state[0] + change, *self.bounds),)

    # Nobody reads it here. On several devices its sums cross first: all tensors' together.
    def summarise(self, state: tuple[Any, ...], tensor: Tensor) -> Any:
        return state


class LogStepSize(AbstractFeatures):
    """One number per tensor: the natural logarithm of its step size, divided by 3.

    The step size is that of [`equistar.HypergradientDescent`][], which must be among the
    accumulators under the name `log_step_size`. With the weight 3 in a
    [`equistar.TensorGain`][], the factor on the tensor's step is the step size itself.
    """

    reads: ClassVar[tuple[str, ...]] = ("log_step_size",)

    def __call__(self, tensor: Tensor) -> Inputs:
        return Inputs(tensor=(tensor.accumulators["log_step_size"][0] / 3,))
