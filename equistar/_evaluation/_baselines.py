"""Hand-made optimizers to compare with, each with its space of settings."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from .._kinds import check_count
from .._optimizers import AbstractOptimizer, OptaxOptimizer


# Half orders of magnitude, 1e-6 .. 1.
HALF_ORDERS = tuple(float(f"{10 ** (k / 2):.4g}") for k in range(-12, 1))
# A setting or a draw of it, and one number for each draw of a sweep.
Settings = dict[str, Float[Array, ""]]
Draws = dict[str, Float[Array, " draws"]]


class AbstractBaseline(eqx.Module):
    """A hand-made optimizer and the settings among which the best is chosen.

    Chosen is the draw with the lowest training loss, over all steps and seeds, on the
    very seeds of the evaluation: a lenient rule, in the baseline's favour.

    **Attributes:**

    - `name`: what tables call it.
    """

    name: eqx.AbstractVar[str]

    @abc.abstractmethod
    def draws(self, *, key: PRNGKeyArray) -> Draws:
        """The settings to try, by name: one number for each draw."""

    @abc.abstractmethod
    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        """The optimizer at one draw, for a training of `steps` steps."""

    @abc.abstractmethod
    def budget(self) -> str:
        """How much tuning there was, in words that stand beside the results."""


class AbstractRateSweep(AbstractBaseline):
    """A baseline whose learning rate is swept, by default over half orders 1e-6 .. 1."""

    rates: eqx.AbstractVar[tuple[float, ...]]

    def draws(self, *, key: PRNGKeyArray) -> Draws:
        return {"learning_rate": jnp.asarray(self.rates, jnp.zeros(()).dtype)}

    def budget(self) -> str:
        low, high = min(self.rates), max(self.rates)
        return f"best of {len(self.rates)} learning rates, {low:g} to {high:g}"


class TunedAdam(AbstractRateSweep):
    """Adam at its best learning rate: what ratios and speed-ups are relative to."""

    rates: tuple[float, ...] = eqx.field(default=HALF_ORDERS, static=True)
    name: str = eqx.field(default="tuned Adam", static=True)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.adam, **settings)


class TunedSGD(AbstractRateSweep):
    """Gradient descent at its best learning rate."""

    rates: tuple[float, ...] = eqx.field(default=HALF_ORDERS, static=True)
    name: str = eqx.field(default="tuned SGD", static=True)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.sgd, **settings)


class TunedMomentum(AbstractRateSweep):
    """Gradient descent with momentum, at its best learning rate."""

    rates: tuple[float, ...] = eqx.field(default=HALF_ORDERS, static=True)
    momentum: float = eqx.field(default=0.9, static=True)
    name: str = eqx.field(default="tuned momentum", static=True)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.sgd, momentum=self.momentum, **settings)


class TunedAdafactor(AbstractRateSweep):
    """Adafactor at its best learning rate."""

    rates: tuple[float, ...] = eqx.field(default=HALF_ORDERS, static=True)
    name: str = eqx.field(default="tuned Adafactor", static=True)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.adafactor, **settings)


class TunedLion(AbstractRateSweep):
    """Lion at its best learning rate."""

    rates: tuple[float, ...] = eqx.field(default=HALF_ORDERS, static=True)
    name: str = eqx.field(default="tuned Lion", static=True)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.lion, **settings)


class TunedNAdamW(AbstractBaseline):
    """NAdamW by random search over learning rate, betas, epsilon, decay and schedule.

    Log-uniform: the learning rate in [1e-5, 1], $1 - \\beta_1$ in [.01, .5],
    $1 - \\beta_2$ in [1e-4, .1], $\\epsilon$ in [1e-10, 1e-3] and the weight decay (times
    the learning rate) in [1e-5, 1]. The schedule is constant, a cosine to a thousandth,
    or that after a linear warm-up over a twentieth of the steps, each as likely.

    `TunedNAdamW(number=1000)` is the paper's search.
    """

    number: int = eqx.field(default=64, static=True)
    name: str = eqx.field(default="tuned NAdamW", static=True)

    def __check_init__(self):
        check_count(self.number, "number")

    def draws(self, *, key: PRNGKeyArray) -> Draws:
        *keys, schedule_key = jr.split(key, 6)
        shape, dtype = (self.number,), jnp.zeros(()).dtype
        ranges = {
            "learning_rate": (1e-5, 1.0),
            "b1": (1e-2, 0.5),
            "b2": (1e-4, 0.1),
            "eps": (1e-10, 1e-3),
            "weight_decay": (1e-5, 1.0),
        }
        values = {
            name: jnp.exp(jr.uniform(k, shape, dtype, np.log(low), np.log(high)))
            for k, (name, (low, high)) in zip(keys, ranges.items(), strict=True)
        }
        kind = jr.randint(schedule_key, shape, 0, 3)
        return {
            **values,
            "b1": 1 - values["b1"],
            "b2": 1 - values["b2"],
            "warm_up": jnp.where(kind == 2, 0.05, 1e-9).astype(dtype),
            "final": jnp.where(kind == 0, 1.0, 1e-3).astype(dtype),
        }

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(scheduled_nadamw, **settings, steps=steps)

    def budget(self) -> str:
        return f"best of {self.number} draws of random search"


class DAdaptation(AbstractBaseline):
    """D-Adaptation of AdamW, which sets its own learning rate."""

    name: str = eqx.field(default="D-Adaptation", static=True)

    def draws(self, *, key: PRNGKeyArray) -> Draws:
        return _one_draw(1.0)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(_dadapt_adamw, **settings)

    def budget(self) -> str:
        return _UNTUNED


class Prodigy(AbstractBaseline):
    """Prodigy, which sets its own learning rate."""

    name: str = eqx.field(default="Prodigy", static=True)

    def draws(self, *, key: PRNGKeyArray) -> Draws:
        return _one_draw(1.0)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(_prodigy, **settings)

    def budget(self) -> str:
        return _UNTUNED


class ScheduleFree(AbstractBaseline):
    """Schedule-free AdamW at optax's default learning rate.

    Losses are those at the point where gradients are taken, held-out ones too.
    """

    name: str = eqx.field(default="schedule-free", static=True)

    def draws(self, *, key: PRNGKeyArray) -> Draws:
        return _one_draw(0.0025)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(_schedule_free_adamw, **settings)

    def budget(self) -> str:
        return _UNTUNED


_UNTUNED = "none: default settings"


def _one_draw(learning_rate: float) -> Draws:
    return {"learning_rate": jnp.full((1,), learning_rate, jnp.zeros(()).dtype)}


def scheduled_nadamw(
    learning_rate: Any, warm_up: Any, final: Any, steps: Any, **others: Any
) -> optax.GradientTransformation:
    """NAdamW with a linear warm-up and a cosine, both as fractions of the steps."""

    def schedule(count: Any) -> Any:
        done = jnp.minimum(count / steps, 1.0)
        cosine = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return learning_rate * jnp.minimum((count + 1) / (warm_up * steps), 1.0) * cosine

    return optax.nadamw(schedule, **others)


# `optax.contrib` is imported where it is used: it is slow, and rarely asked for.
def _dadapt_adamw(learning_rate: Any) -> optax.GradientTransformation:
    import optax.contrib

    return optax.contrib.dadapt_adamw(learning_rate)


def _prodigy(learning_rate: Any) -> optax.GradientTransformation:
    import optax.contrib

    return optax.contrib.prodigy(learning_rate)


def _schedule_free_adamw(learning_rate: Any) -> optax.GradientTransformation:
    import optax.contrib

    return optax.contrib.schedule_free_adamw(learning_rate)
