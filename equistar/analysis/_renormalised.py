"""The cure for exploding and vanishing meta-gradients of linear recursions."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._unrolls import AbstractUnroll


class RenormalisedState(eqx.Module):
    """State of [`equistar.analysis.RenormalisedUnroll`][].

    **Attributes:**

    - `direction`: a unit vector.
    - `uncounted`: the part of the log-energy that no loss contains yet.
    """

    direction: Float[Array, " n"]
    uncounted: Float[Array, ""]


class RenormalisedUnroll(AbstractUnroll):
    """A linear recursion $v_{t+1} = M(\\theta) v_t$ with the loss $\\log f(v_T)$.

    The state is a unit vector, and the logarithm of its norm is kept separately:

    $$v = M(\\theta) u, \\qquad u' = v / |v|, \\qquad
    l_t = 2 \\log |v| + \\log f(u') - \\log f(u)$$

    For an energy $f$ that is homogeneous of degree 2 these increments add up to
    $\\log f(v_T)$ (the first one also contains the start's energy), so that an episode's
    mean loss is $G = \\frac1T \\log f(v_T)$. Nothing overflows or underflows, forwards
    or backwards: plain reverse mode agrees with the exact gradient even if
    back-propagation through the recursion itself gives NaN, or a silent zero. It works with
    every estimator. An affine recursion is linear in the augmented state $(v, 1)$. Ours;
    the objective is that of [`equistar.analysis.StepSizeProblem`][].

    !!! Example

        ```python
        # The step size of gradient descent on a quadratic.
        unroll = eqs.analysis.RenormalisedUnroll(
            start=lambda theta: jnp.ones(20),
            linear=lambda theta, v: v - theta * curvature * v,
            energy=lambda v: 0.5 * jnp.sum(curvature * v**2),
        )
        eqs.meta_gradient(unroll, eqs.FullBackprop(80, 1), jnp.asarray(0.1), key=key)
        ```

    **Arguments:**

    - `start`: $v_0$ from `theta`; not zero.
    - `linear`: $M(\\theta) v$ from `theta` and `v`.
    - `energy`: $f$, positive and homogeneous of degree 2.
    """

    start: Callable[[PyTree], Float[Array, " n"]]
    linear: Callable[[PyTree, Float[Array, " n"]], Float[Array, " n"]]
    energy: Callable[[Float[Array, " n"]], Float[Array, ""]]

    def init(self, theta: PyTree, *, key: PRNGKeyArray) -> RenormalisedState:
        direction, log_norm = _normalise(self.start(theta))
        return RenormalisedState(direction, self._log_energy(direction, log_norm))

    def step(
        self, theta: PyTree, carry: RenormalisedState, *, key: PRNGKeyArray
    ) -> tuple[RenormalisedState, Float[Array, ""]]:
        direction, log_norm = _normalise(self.linear(theta, carry.direction))
        gained = self._log_energy(direction, log_norm)
        loss = gained - self._log_energy(carry.direction, 0.0) + carry.uncounted
        return RenormalisedState(direction, jnp.zeros_like(loss)), loss

    def _log_energy(self, direction: Float[Array, " n"], log_norm: Any) -> Array:
        return 2 * log_norm + jnp.log(self.energy(direction))


# By the largest entry first, whose square cannot overflow.
def _normalise(v: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(v)))
    scaled = v / largest
    norm = jnp.sqrt(jnp.sum(scaled**2))
    return scaled / norm, jnp.log(norm) + jnp.log(largest)
