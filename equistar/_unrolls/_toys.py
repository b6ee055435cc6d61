"""Two small unrolls on which estimators of meta-gradients are told apart."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._kinds import as_int, check_count
from ._unroll import AbstractUnroll


class InfluenceBalancing(AbstractUnroll):
    """$s' = A s + \\theta b$ with the loss $\\frac12 (s_0 - 1)^2$.

    A has 1/2 on its diagonal and superdiagonal; b is 1 in its first `positive` entries
    and -1 in the others. In the steady state $s_0 = 2 \\theta \\sum b$, so the sign of the
    long-term influence of $\\theta$ on $s_0$ is that of $\\sum b$, while the first step's
    is positive: truncated estimators go the wrong way.

    ??? cite

        ```bibtex
        @inproceedings{vicol2021unbiased,
            title={Unbiased Gradient Estimation in Unrolled Computation Graphs with
                   Persistent Evolution Strategies},
            author={Vicol, Paul and Metz, Luke and Sohl-Dickstein, Jascha},
            booktitle={International Conference on Machine Learning},
            year={2021},
            eprint={2112.13835},
        }
        ```

    **Attributes:**

    - `states`: the size of s.
    - `positive`: the number of its entries that $\\theta$ increases.

    `theta` is an array of one number.

    **Raises:**

    `ValueError` unless both are whole numbers with 1 <= `positive` <= `states`.
    """

    states: int = eqx.field(default=23, converter=as_int, static=True)
    positive: int = eqx.field(default=10, converter=as_int, static=True)

    def __check_init__(self):
        check_count(self.states, "states")
        check_count(self.positive, "positive")
        if self.positive > self.states:
            raise ValueError(
                "`positive` must be between 1 and `states`; got "
                f"{self.positive} and {self.states}."
            )

    @property
    def steady(self) -> float:
        """$s_0 / \\theta$ in the steady state."""
        return 2.0 * (2 * self.positive - self.states)

    def init(self, theta: Float[Array, "1"], *, key: PRNGKeyArray) -> Float[Array, " n"]:
        return jnp.zeros(self.states, theta.dtype)

    def step(
        self, theta: Float[Array, "1"], carry: Float[Array, " n"], *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " n"], Float[Array, ""]]:
        above = jnp.concatenate([carry[1:], jnp.zeros(1, carry.dtype)])
        signs = jnp.where(jnp.arange(self.states) < self.positive, theta, -theta)
        carry = 0.5 * (carry + above) + signs
        # The loss after the step: with windows of one, truncation sees that step alone.
        return carry, 0.5 * (carry[0] - 1) ** 2


class RuggedRegression(AbstractUnroll):
    """Gradient descent on a rugged loss of two numbers, by a schedule of two numbers.

    $$l(x) = \\sqrt{x_0^2 + 5} - \\sqrt 5 + \\sin^2(x_1)\\, e^{-5 x_0^2}
    + \\tfrac14 |x_1 - 100|$$

    from $x = (1, 1)$. In `length` steps, the step size goes linearly from
    $e^{\\theta_0}$ to $e^{\\theta_1}$. `theta` is an array of these two numbers. It is the
    PES paper's regression in two dimensions, on which short horizons learn step sizes that
    are too small: see [`equistar.InfluenceBalancing`][] for the source.

    **Attributes:**

    - `length`: of the schedule, in steps.

    **Raises:**

    `ValueError` if `length` is below 1.
    """

    length: int = eqx.field(default=100, converter=as_int, static=True)

    def __check_init__(self):
        check_count(self.length, "length")

    def init(
        self, theta: Float[Array, "2"], *, key: PRNGKeyArray
    ) -> tuple[Float[Array, "2"], Int[Array, ""]]:
        return jnp.ones(2, theta.dtype), jnp.zeros((), jnp.int32)

    def step(
        self,
        theta: Float[Array, "2"],
        carry: tuple[Float[Array, "2"], Int[Array, ""]],
        *,
        key: PRNGKeyArray,
    ) -> tuple[tuple[Float[Array, "2"], Int[Array, ""]], Float[Array, ""]]:
        x, t = carry
        loss, gradient = jax.value_and_grad(_rugged)(x)
        done = t.astype(theta.dtype) / self.length
        rate = jnp.exp(theta[0]) * (1 - done) + jnp.exp(theta[1]) * done
        return (x - rate * gradient, t + 1), loss


def _rugged(x: Float[Array, "2"]) -> Float[Array, ""]:
    a, b = x
    rough = jnp.sin(b) ** 2 * jnp.exp(-5 * a**2)
    return jnp.sqrt(a**2 + 5) - jnp.sqrt(5.0) + rough + 0.25 * jnp.abs(b - 100)
