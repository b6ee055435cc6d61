"""A learned step that is taken only while a criterion holds."""

import abc
import functools as ft
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._kinds import as_number, check_function, check_parts, described, is_number
from .._lowering import varying_as
from .._numerics import accumulator_dtype, all_finite, relative_norms
from ._base import AbstractOptimizer
from ._trees import check_state


class AbstractCriterion(eqx.Module):
    """Decides whether a learned step may be taken. Each says exactly what it promises."""

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
        - `extra`: the other arguments of `update`.
        """


class EnergyDecrease(AbstractCriterion):
    """The energy falls by at least a given share of what the fallback's step would give.

    $$E(\\phi + u) \\le E(\\phi) - c \\, (E(\\phi) - E(\\phi + u_f))$$

    with the learned step $u$ and the fallback's $u_f$.

    *Promise:* wherever the fallback's step lowers the energy, so does every step that is
    taken, unless something scales it afterwards. For example, on a quadratic with its own
    loss as energy and gradient descent inside its stable range as fallback, no learned
    optimizer can make the loss rise. An energy that is NaN counts as no decrease. It costs
    three evaluations of the energy.

    The criterion with a factor is ours; the source compares the losses of both steps.

    ??? cite

        ```bibtex
        @inproceedings{premontschwarz2022simple,
            title={A Simple Guard for Learned Optimizers},
            author={Pr{\\'e}mont-Schwarz, Isabeau and V{\\'\\i}tk{\\r{u}}, Jaroslav and
                    Feyereisl, Jan},
            booktitle={International Conference on Machine Learning},
            year={2022},
            eprint={2201.12426},
        }
        ```
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

        **Raises:**

        `ValueError` if `function` cannot be called or `factor` is not in (0, 1]; in an
        update, if the energy is not one floating-point number.
        """
        check_function(function, "function", "lambda params: loss(params, batch)")
        self.function = function
        self.factor = _as_factor(factor)

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

    `update(..., value_fn=function)` is optax's convention for line searches.
    [`equistar.train`][] and meta-training pass the loss on the present minibatch.
    *Promise:* that of `EnergyDecrease`, for each step's own function; the loss on other
    minibatches may rise.
    """

    factor: float = eqx.field(static=True)

    def __init__(self, factor: float = 0.5):
        """**Arguments:**

        - `factor`: as for [`equistar.EnergyDecrease`][].

        **Raises:**

        As [`equistar.EnergyDecrease`][]; and in an update without `value_fn`.
        """
        self.factor = _as_factor(factor)

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

    with Euclidean norms of the learned step $u$ and the fallback's $u_f$ over the whole
    tree.

    *Promise:* only the bound on the step. The fallback's step with its sign changed passes,
    and diverges. The bound holds at every scale, except for subnormal numbers. If the
    fallback's step is not finite, the learned step is not taken.

    **Attributes:**

    - `multiple`: $k$.

    **Raises:**

    `ValueError` if `multiple` is not one positive and finite number.
    """

    multiple: float = eqx.field(
        default=10.0, static=True, converter=lambda x: as_number(x, "`multiple`", "10.0")
    )

    def __check_init__(self):
        if not 0 < self.multiple < float("inf"):
            raise ValueError(
                f"`multiple` must be positive and finite; got {self.multiple}."
            )

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

    A learned step that is not finite is never taken. Both states advance at every step. If
    a NaN stays in the learned optimizer's state, the fallback takes all further steps.

    The criterion judges the step exactly as `learned` returns it. Put a learning rate or
    weight decay inside, `Safeguarded(Scaled(star, 0.5), ...)`: scaling afterwards, by
    `as_optax(safe, learning_rate=2)` or in an optax chain, gives a step that nobody judged.

    !!! Example

        ```python
        fallback = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
        safe = eqs.Safeguarded(star, fallback, eqs.EnergyDecrease(loss_on_a_fixed_batch))
        ```

    **Attributes:**

    - `learned`: the optimizer to guard, any one of this library.
    - `fallback`: the optimizer whose step is taken otherwise.
    - `criterion`: decides, say [`equistar.EnergyDecrease`][], which names the source.

    **Raises:**

    `ValueError` if one of them is not of its kind.
    """

    learned: AbstractOptimizer
    fallback: AbstractOptimizer
    criterion: AbstractCriterion

    def __check_init__(self):
        for name in ("learned", "fallback"):
            if isinstance(getattr(self, name), optax.GradientTransformation):
                raise ValueError(
                    f"`{name}` of Safeguarded must be an optimizer, and is an optax "
                    "transformation: make one of it, say `OptaxOptimizer(optax.sgd, "
                    "learning_rate=0.1)`."
                )
        check_parts(self)

    def init(self, params: PyTree) -> SafeguardedState:
        # A decision is of the whole tree.
        varying = lambda zero: ft.reduce(
            lambda zero, p: varying_as(p, zero), jtu.tree_leaves(params), zero
        )
        return SafeguardedState(
            self.learned.init(params),
            self.fallback.init(params),
            varying(jnp.zeros((), bool)),
            varying(jnp.zeros((), jnp.int32)),
        )

    def update(
        self, grads: PyTree, state: SafeguardedState, params: PyTree, **extra: Any
    ) -> tuple[PyTree, SafeguardedState]:
        check_state(state, SafeguardedState, "fallbacks")
        ours, learned = self.learned.update(grads, state.learned, params, **extra)
        theirs, fallback = self.fallback.update(grads, state.fallback, params, **extra)
        allowed = self.criterion(ours, theirs, params, **extra) & all_finite(ours)
        updates = jtu.tree_map(lambda u, f: jnp.where(allowed, u, f), ours, theirs)
        count = state.fallbacks + jnp.where(allowed, 0, 1).astype(jnp.int32)
        return updates, SafeguardedState(learned, fallback, ~allowed, count)


def _as_factor(value: Any) -> float:
    factor = as_number(value, "`factor`", "0.5")
    if not 0 < factor <= 1:
        raise ValueError(f"`factor` must be in (0, 1]; got {factor}.")
    return factor


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
