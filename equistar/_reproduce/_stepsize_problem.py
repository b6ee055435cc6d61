"""Gradient descent on a random quadratic, as the unrolls that the experiments compare."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._eigh import eigh
from .._numerics import matmul
from .._unrolls import AbstractUnroll
from ..analysis import RenormalisedUnroll, StepSizeProblem


def draw_problem(
    size: int, columns: int, divisor: float, *, key: PRNGKeyArray
) -> StepSizeProblem:
    """$H = X X^\\top / d$ with normal $X$, from a random unit vector; in float32.

    That is where the failures are the commonest, and what users have.
    """
    matrix_key, start_key = jr.split(key)
    x = jr.normal(matrix_key, (size, columns), jnp.float32)
    eigenvalues, vectors = eigh(matmul(x, x.T) / jnp.float32(divisor))
    start = jr.normal(start_key, (size,), jnp.float32)
    return StepSizeProblem(eigenvalues, matmul(vectors.T, start))


class Descent(eqx.Module):
    """The recursion, of which every unroll here is made."""

    problem: StepSizeProblem

    def start(self, step_size: Float[Array, ""]) -> Float[Array, " n"]:
        return self.problem.coefficients

    def step(
        self, step_size: Float[Array, ""], w: Float[Array, " n"]
    ) -> Float[Array, " n"]:
        return w - step_size * self.problem.eigenvalues * w

    def loss(self, w: Float[Array, " n"]) -> Float[Array, ""]:
        return 0.5 * jnp.sum(self.problem.eigenvalues * w**2)

    def renormalised(self) -> RenormalisedUnroll:
        """A unit vector is carried, its norm counted apart; the mean loss is $G$."""
        # Bound methods of a module are pytrees, so that nothing is closed over.
        return RenormalisedUnroll(self.start, self.step, self.loss)


class PlainUnroll(AbstractUnroll):
    """The recursion as it stands; the loss is that after the step."""

    descent: Descent

    def init(self, theta: Float[Array, ""], *, key: PRNGKeyArray) -> Float[Array, " n"]:
        return self.descent.start(theta)

    def step(
        self, theta: Float[Array, ""], carry: Float[Array, " n"], *, key: PRNGKeyArray
    ) -> tuple[Float[Array, " n"], Float[Array, ""]]:
        carry = self.descent.step(theta, carry)
        return carry, self.descent.loss(carry)


class ClosedForm(AbstractUnroll):
    """$G$ after so many steps, as the loss of an unroll of one step."""

    problem: StepSizeProblem
    horizon: Int[Array, ""]

    def init(self, theta: Float[Array, ""], *, key: PRNGKeyArray) -> Float[Array, ""]:
        return jnp.zeros_like(theta)

    def step(
        self, theta: Float[Array, ""], carry: Float[Array, ""], *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return carry, self.problem.log_objective(theta, self.horizon)
