"""Unrolls: dynamical systems with a loss, which meta-gradients are taken through."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._hash import hash_or_advice


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

    def __hash__(self) -> int:
        return hash_or_advice(self, super().__hash__, "`eqx.filter_jit(unroll.step)`")

    @abc.abstractmethod
    def init(self, theta: PyTree, *, key: PRNGKeyArray) -> PyTree[Array]:
        """The carry at the start of an episode: a pytree of arrays.

        **Arguments:**

        - `theta`: the meta-parameters, any pytree. Its inexact arrays are differentiated.
        - `key`: a PRNG key, another one for each episode. All members of a particle, say
            both of an antithetic pair, get the same one.

        **Raises:**

        Whatever it raises is passed on. Estimators and `meta_train` refuse, with a
        `ValueError` and before anything is computed, a carry with leaves that are no
        arrays: numbers of Python's are wrapped in `jnp.asarray`.
        """

    @abc.abstractmethod
    def step(
        self, theta: PyTree, carry: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], Float[Array, ""]]:
        """`(carry, loss)`: the next carry, and the loss recorded for this step.

        The loss is a floating-point array of shape `()`. The carry keeps its structure,
        shapes and dtypes at every step, for steps are scanned over.

        **Arguments:**

        - `theta`: as for `init`.
        - `carry`: from `init` or the step before.
        - `key`: a PRNG key, another one for each step. All members of a particle get the
            same one, so that they see the same data.

        **Raises:**

        Whatever it raises is passed on. Estimators and `meta_train` refuse, with a
        `ValueError` and before anything is computed, what is no pair, a loss that is not a
        floating-point array of shape `()`, and a carry that differs from that of `init`
        in structure, shapes or dtypes.
        """


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
