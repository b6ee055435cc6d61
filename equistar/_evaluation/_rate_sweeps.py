"""Hand-made optimizers of which the best learning rate is chosen."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .._kinds import as_number, check_function, check_kind
from .._optimizers import AbstractOptimizer, OptaxOptimizer
from ._baselines import AbstractBaseline, Draws, Settings


# Half orders of magnitude, 1e-6 .. 1.
_HALF_ORDERS = tuple(float(f"{10 ** (k / 2):.4g}") for k in range(-12, 1))


def _check_rates(rates: Any) -> None:
    """Raises a `ValueError` unless these are learning rates to choose from."""
    is_rate = lambda x: isinstance(x, int | float) and 0 < x < math.inf
    if not isinstance(rates, tuple) or not rates or not all(map(is_rate, rates)):
        raise ValueError(
            "`rates` must be a tuple of positive, finite learning rates, say (1e-3, 1e-2); "
            f"got {rates!r:.80}."
        )


def _as_momentum(value: Any) -> float:
    """A number of Python's; raises a `ValueError` for what is none."""
    return as_number(value, "`momentum`", "0.9")


class AbstractRateSweep(AbstractBaseline):
    """A baseline that sweeps its learning rate, over half orders 1e-6 .. 1 or `rates`."""

    rates: eqx.AbstractVar[tuple[float, ...]]

    def __check_init__(self):
        _check_rates(self.rates)

    def draws(self, *, key: PRNGKeyArray) -> Draws:
        return {"learning_rate": jnp.asarray(self.rates, jnp.zeros(()).dtype)}

    def budget(self) -> str:
        low, high = min(self.rates), max(self.rates)
        return f"best of {len(self.rates)} learning rates, {low:g} to {high:g}"


class TunedAdam(AbstractRateSweep):
    """Adam at its best learning rate: the reference of ratios and speed-ups."""

    rates: tuple[float, ...] = eqx.field(default=_HALF_ORDERS, static=True)
    name: str = eqx.field(default="tuned Adam", static=True, kw_only=True)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.adam, **settings)


class TunedSGD(AbstractRateSweep):
    """Gradient descent at its best learning rate, $p \\leftarrow p - \\eta g$."""

    rates: tuple[float, ...] = eqx.field(default=_HALF_ORDERS, static=True)
    name: str = eqx.field(default="tuned SGD", static=True, kw_only=True)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.sgd, **settings)


class TunedMomentum(AbstractRateSweep):
    """Gradient descent with `momentum`, $m \\leftarrow \\mu m + g$, at its best rate."""

    rates: tuple[float, ...] = eqx.field(default=_HALF_ORDERS, static=True)
    momentum: float = eqx.field(default=0.9, converter=_as_momentum, static=True)
    name: str = eqx.field(default="tuned momentum", static=True, kw_only=True)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.sgd, momentum=self.momentum, **settings)


class TunedAdafactor(AbstractRateSweep):
    """Adafactor at its best learning rate; see [`equistar.FactoredSecondMoment`][]."""

    rates: tuple[float, ...] = eqx.field(default=_HALF_ORDERS, static=True)
    name: str = eqx.field(default="tuned Adafactor", static=True, kw_only=True)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.adafactor, **settings)


class TunedLion(AbstractRateSweep):
    """Lion at its best learning rate.

    $$p \\leftarrow p - \\eta\\,(\\operatorname{sign}(b_1 m + (1 - b_1) g) + \\lambda p),
    \\qquad m \\leftarrow b_2 m + (1 - b_2) g$$

    with optax's defaults $b_1 = 0.9$, $b_2 = 0.99$ and $\\lambda = 10^{-3}$.

    ??? cite

        ```bibtex
        @inproceedings{chen2023symbolic,
            title={Symbolic Discovery of Optimization Algorithms},
            author={Chen, Xiangning and Liang, Chen and Huang, Da and others},
            booktitle={Advances in Neural Information Processing Systems},
            year={2023},
        }
        ```
    """

    rates: tuple[float, ...] = eqx.field(default=_HALF_ORDERS, static=True)
    name: str = eqx.field(default="tuned Lion", static=True, kw_only=True)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.lion, **settings)


class TunedOptax(AbstractRateSweep):
    """Any optimizer of optax at its best learning rate.

    !!! Example

        ```python
        adamw = lambda rate: optax.adamw(rate, weight_decay=1e-2)
        baseline = eqs.TunedOptax(adamw, "tuned AdamW")
        ```
    """

    make: Callable[[Any], optax.GradientTransformation] = eqx.field(static=True)
    name: str = eqx.field(static=True)
    rates: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        make: Callable[[Any], optax.GradientTransformation],
        name: str,
        rates: tuple[float, ...] = _HALF_ORDERS,
    ):
        """**Arguments:**

        - `make`: a function from a learning rate to an optimizer, say `optax.adamax`.
        - `name`: in tables.
        - `rates`: the learning rates to choose from.

        **Raises:** `ValueError` if an argument is not of its kind.
        """
        check_function(make, "make", "optax.adamax")
        check_kind(name, str, "`name`", "a string, say 'tuned Adamax'")
        self.make = make
        self.name = name
        self.rates = rates

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(_of_rate, make=self.make, **settings)


# Whatever the argument of `make` is called.
def _of_rate(learning_rate: Any, make: Callable[..., Any]) -> Any:
    return make(learning_rate)
