"""Unrolls: dynamical systems with a loss, which meta-gradients are taken through."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree


class AbstractUnroll(eqx.Module):
    """A dynamical system with a loss, driven by meta-parameters `theta`.

    Estimators differentiate any unroll with respect to any pytree. Inner training of a
    task by a learned optimizer ([`equistar.InnerTraining`][]) is one; a step size on a
    quadratic or a random walk are others.

    !!! Example

        ```python
        class StepSize(eqs.AbstractUnroll):
            curvature: Array

            def init(self, theta, *, key):
                return jnp.ones_like(self.curvature)

            def step(self, theta, carry, *, key):
                loss = 0.5 * jnp.sum(self.curvature * carry**2)
                return carry - theta * self.curvature * carry, loss
        ```
    """

    @abc.abstractmethod
    def init(self, theta: PyTree, *, key: PRNGKeyArray) -> PyTree[Array]:
        """The carry at the start of an episode: a pytree of arrays."""

    @abc.abstractmethod
    def step(
        self, theta: PyTree, carry: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], Float[Array, ""]]:
        """`(carry, loss)`: the next carry, and the loss recorded for this step."""


class Completed(AbstractUnroll):
    """An unroll as a function of a part of its theta; the rest is held."""

    unroll: AbstractUnroll
    held: PyTree

    def init(self, theta: PyTree, *, key: PRNGKeyArray) -> PyTree[Array]:
        return self.unroll.init(eqx.combine(theta, self.held), key=key)

    def step(
        self, theta: PyTree, carry: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], Float[Array, ""]]:
        return self.unroll.step(eqx.combine(theta, self.held), carry, key=key)


def check_is_unroll(unroll: Any) -> None:
    """Raises a `ValueError` for what is no unroll, say a task."""
    if isinstance(unroll, AbstractUnroll):
        return
    is_class = isinstance(unroll, type)
    name = f"The class {unroll.__name__}" if is_class else type(unroll).__name__
    raise ValueError(
        f"{name} is no unroll: wrap a task, as in `eqs.InnerTraining(task)`, and pass the "
        "unrolls of a mixture one by one (`meta_train` takes it whole)."
    )
