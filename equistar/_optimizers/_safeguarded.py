"""A learned step that is taken only while a criterion holds."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._kinds import check_function, check_parts
from .._numerics import (
    accumulator_dtype,
    all_finite,
    described,
    is_number,
    relative_norms,
)
from ._base import AbstractOptimizer


class AbstractCriterion(eqx.Module):
    """Whether a learned step may be taken. Each states what it can promise, no more."""

    @abc.abstractmethod
    def __call__(
        self,
        learned: PyTree[Array],
        fallback: PyTree[Array],
        params: PyTree[Array],
        **extra: Any,
    ) -> Bool[Array, ""]:
        """Whether the learned updates may be taken.

        **Arguments:**

        - `learned`, `fallback`: updates, to be added to the parameters.
        - `params`: the parameters before the step.
        - `extra`: what `update` was given besides.
        """


class EnergyDecrease(AbstractCriterion):
    """The energy falls at least as it would by the fallback, up to a factor.

    $$E(\\phi + u) \\le E(\\phi) - c \\, (E(\\phi) - E(\\phi + u_f))$$

    *Promise:* wherever the fallback's step lowers the energy, so does every step that is
    taken. On a quadratic, with its own loss as energy and gradient descent inside
    its stable range as fallback, no learned optimizer whatever makes the loss rise. An
    energy that is NaN counts as no decrease. Costs three evaluations of the energy.
    """

    function: Callable[[PyTree[Array]], Float[Array, ""]]
    factor: float = eqx.field(static=True)

    def __init__(
        self, function: Callable[[PyTree[Array]], Float[Array, ""]], factor: float = 0.5
    ):
        """**Arguments:**

        - `function`: $E$, of the parameters: say the loss on a fixed batch. Data that it
            closes over is not meta-learned; arrays of an `eqx.Module` would be.
        - `factor`: $c$ in (0, 1]; 1 asks for as much as the fallback gives.
        """
        check_function(function, "function", "lambda params: loss(params, batch)")
        _check_factor(factor)
        self.function = function
        self.factor = float(factor)

    def __call__(
        self,
        learned: PyTree[Array],
        fallback: PyTree[Array],
        params: PyTree[Array],
        **extra: Any,
    ) -> Bool[Array, ""]:
        return _falls(self.function, self.factor, learned, fallback, params)


class PassedEnergyDecrease(AbstractCriterion):
    """As [`equistar.EnergyDecrease`][], of a function that is passed at each update.

    `update(..., value_fn=function)`, optax's convention for line searches: say the loss on
    the present minibatch, which [`equistar.train`][] and meta-training pass. *Promise:* as
    there, for each step's own function; on changing minibatches the loss on others may
    rise.
    """

    factor: float = eqx.field(static=True)

    def __init__(self, factor: float = 0.5):
        """**Arguments:**

        - `factor`: as for [`equistar.EnergyDecrease`][].
        """
        _check_factor(factor)
        self.factor = float(factor)

    def __call__(
        self,
        learned: PyTree[Array],
        fallback: PyTree[Array],
        params: PyTree[Array],
        **extra: Any,
    ) -> Bool[Array, ""]:
        if not callable(extra.get("value_fn")):
            raise ValueError(
                "PassedEnergyDecrease needs the loss as a function of the parameters: "
                "call `update(grads, state, params, value_fn=loss)`."
            )
        return _falls(extra["value_fn"], self.factor, learned, fallback, params)


class StepBound(AbstractCriterion):
    """The step's norm is at most a multiple of the fallback's.

    $$|u| \\le k |u_f|$$

    *Promise:* the bound on the step, and nothing more: the fallback's step with its sign
    changed passes, and diverges. It holds at every scale, short of subnormal numbers; a
    fallback's step that is not finite bounds nothing, and the learned one is then not
    taken.
    """

    multiple: float = eqx.field(default=10.0, static=True)

    def __check_init__(self):
        if not 0 < self.multiple < float("inf"):
            raise ValueError(f"`multiple` must be positive; got {self.multiple}.")

    def __call__(
        self,
        learned: PyTree[Array],
        fallback: PyTree[Array],
        params: PyTree[Array],
        **extra: Any,
    ) -> Bool[Array, ""]:
        return _bounded(learned, fallback, self.multiple)


class SafeguardedState(eqx.Module):
    """State of [`equistar.Safeguarded`][].

    **Attributes:**

    - `learned`, `fallback`: the two optimizers' states; both advance at every step.
    - `fell_back`: whether the last step was the fallback's.
    - `fallbacks`: how many steps were.
    """

    learned: PyTree
    fallback: PyTree
    fell_back: Bool[Array, ""]
    fallbacks: Int[Array, ""]


class Safeguarded(AbstractOptimizer):
    """Takes the learned optimizer's step while a criterion holds, else the fallback's.

    A learned step that is not finite is never taken. Both states advance at every step, so
    a NaN that stays in the learned optimizer's state leaves the fallback in charge.

    !!! Example

        ```python
        fallback = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
        safe = eqs.Safeguarded(star, fallback, eqs.EnergyDecrease(loss_on_a_fixed_batch))
        ```
    """

    learned: AbstractOptimizer
    fallback: AbstractOptimizer
    criterion: AbstractCriterion

    def __check_init__(self):
        check_parts(self)

    def init(self, params: PyTree) -> SafeguardedState:
        return SafeguardedState(
            self.learned.init(params),
            self.fallback.init(params),
            jnp.zeros((), bool),
            jnp.zeros((), jnp.int32),
        )

    def update(
        self, grads: PyTree, state: SafeguardedState, params: PyTree, **extra: Any
    ) -> tuple[PyTree, SafeguardedState]:
        ours, learned = self.learned.update(grads, state.learned, params, **extra)
        theirs, fallback = self.fallback.update(grads, state.fallback, params, **extra)
        allowed = self.criterion(ours, theirs, params, **extra) & all_finite(ours)
        updates = jtu.tree_map(lambda u, f: jnp.where(allowed, u, f), ours, theirs)
        count = state.fallbacks + jnp.where(allowed, 0, 1).astype(jnp.int32)
        return updates, SafeguardedState(learned, fallback, ~allowed, count)


def _check_factor(factor: float) -> None:
    if not isinstance(factor, int | float | np.number) or not 0 < factor <= 1:
        raise ValueError(f"`factor` must be a number in (0, 1]; got {factor!r}.")


def _falls(
    function: Callable[[PyTree[Array]], Float[Array, ""]],
    factor: float,
    learned: PyTree[Array],
    fallback: PyTree[Array],
    params: PyTree[Array],
) -> Bool[Array, ""]:
    now = function(params)
    fall = lambda updates: now - function(jtu.tree_map(jnp.add, params, updates))
    if not is_number(now):
        raise ValueError(
            "The energy must be one floating-point number, say the mean of losses; got "
            f"{described(now)}."
        )
    # Of the fallback an energy that is NaN is no fall; of the learned step it is refused,
    # for a comparison with NaN is false.
    ours, theirs = fall(learned), fall(fallback)
    least = factor * jnp.where(jnp.isnan(theirs), 0, theirs)
    return (ours >= least) & (ours > -jnp.inf)


def _bounded(learned: PyTree[Array], fallback: PyTree[Array], multiple: float) -> Array:
    leaves = [jtu.tree_leaves(tree) for tree in (learned, fallback)]
    dtypes = [accumulator_dtype(x.dtype) for x in (*leaves[0], *leaves[1])]
    dtype = max(dtypes, key=lambda d: d.itemsize, default=jnp.dtype(jnp.float32))
    # Squares of plain numbers overflow or vanish on both sides, and then compare as equal.
    _, (ours, theirs) = relative_norms(leaves, dtype)
    return ours <= multiple * theirs
