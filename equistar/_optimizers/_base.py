"""What an optimizer is: a pytree that maps gradients to updates."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import PyTree

from .._hash import hash_or_advice


class AbstractOptimizer(eqx.Module):
    """An optimizer is the pytree of its meta-parameters.

    Its inexact-array leaves are meta-learned; Python numbers are fixed. The calling
    convention is optax's: updates are to be *added* to the parameters. `eqx.filter_jit`
    compiles its methods; `jax.jit` compiles those of [`equistar.as_optax`][].
    """

    def __hash__(self) -> int:
        instead = (
            "`eqx.filter_jit(optimizer.update)`, or `jax.jit(as_optax(optimizer).update)`"
        )
        return hash_or_advice(self, super().__hash__, instead)

    @abc.abstractmethod
    def init(self, params: PyTree) -> PyTree:
        """The state before the first update.

        **Arguments:**

        - `params`: a pytree of floating-point arrays. `None` leaves are kept.

        **Raises:**

        `ValueError` if a leaf is not a floating-point array; keep those with
        `eqx.filter(model, eqx.is_inexact_array)`.
        """

    @abc.abstractmethod
    def update(
        self, grads: PyTree, state: PyTree, params: PyTree, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        """One step.

        **Arguments:**

        - `grads`: gradients, a pytree of the structure of `params`.
        - `state`: from `init` or the last `update`.
        - `params`: the parameters before the step.
        - `extra`: what optax may pass (`value=`, `value_fn=` and others).

        **Returns:**

        `(updates, state)`: updates in the structure and dtypes of `params`, to be added
        to them (`optax.apply_updates`, `eqx.apply_updates`), and the new state.

        **Raises:**

        `ValueError` if `grads` or `state` do not fit `params`.
        """
