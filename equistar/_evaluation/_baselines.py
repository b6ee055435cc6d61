"""Hand-made optimizers to compare with, each with its space of settings."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import optax.contrib
from jaxtyping import Array, Float, PRNGKeyArray

from .._kinds import as_int, check_count
from .._optimizers import AbstractOptimizer, OptaxOptimizer


# A setting or a draw of it, and one number for each draw of a sweep.
Settings = dict[str, Float[Array, ""]]
Draws = dict[str, Float[Array, " draws"]]


class AbstractBaseline(eqx.Module):
    """A hand-made optimizer, and the settings from which the best is chosen.

    The best draw is the one with the lowest mean training loss over all steps and seeds, on
    the very seeds of the evaluation. This rule favours the baseline.

    **Attributes:**

    - `name`: in tables.
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
        """How much tuning there was, in words that reports show with the results."""


class TunedNAdamW(AbstractBaseline):
    """NAdamW by random search over learning rate, betas, epsilon, decay and schedule.

    Log-uniform: the learning rate in [1e-5, 1], $1 - \\beta_1$ in [.01, .5],
    $1 - \\beta_2$ in [1e-4, .1], $\\epsilon$ in [1e-10, 1e-3] and the weight decay (times
    the learning rate) in [1e-5, 1]. The schedule is constant, a cosine to a thousandth,
    or that times a linear warm-up over a twentieth of the steps, with equal probability.

    `TunedNAdamW(number=1000)` is the search of the STAR paper ([`equistar.STAR`][]). A
    `number` of draws below 1 raises a `ValueError`.
    """

    number: int = eqx.field(default=64, converter=as_int, static=True)
    name: str = eqx.field(default="tuned NAdamW", static=True, kw_only=True)

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
    """D-Adaptation of AdamW, which sets its own learning rate.

    ??? cite

        ```bibtex
        @inproceedings{defazio2023learning,
            title={Learning-Rate-Free Learning by {D}-Adaptation},
            author={Defazio, Aaron and Mishchenko, Konstantin},
            booktitle={International Conference on Machine Learning},
            year={2023},
        }
        ```
    """

    name: str = eqx.field(default="D-Adaptation", static=True, kw_only=True)

    def draws(self, *, key: PRNGKeyArray) -> Draws:
        return _one_draw(1.0)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.contrib.dadapt_adamw, **settings)

    def budget(self) -> str:
        return _UNTUNED


class Prodigy(AbstractBaseline):
    """Prodigy, which sets its own learning rate.

    ??? cite

        ```bibtex
        @inproceedings{mishchenko2024prodigy,
            title={Prodigy: An Expeditiously Adaptive Parameter-Free Learner},
            author={Mishchenko, Konstantin and Defazio, Aaron},
            booktitle={International Conference on Machine Learning},
            year={2024},
        }
        ```
    """

    name: str = eqx.field(default="Prodigy", static=True, kw_only=True)

    def draws(self, *, key: PRNGKeyArray) -> Draws:
        return _one_draw(1.0)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.contrib.prodigy, **settings)

    def budget(self) -> str:
        return _UNTUNED


class ScheduleFree(AbstractBaseline):
    """Schedule-free AdamW at optax's default learning rate, 0.0025.

    Losses, held-out ones too, are those at the point where gradients are taken.

    ??? cite

        ```bibtex
        @inproceedings{defazio2024road,
            title={The Road Less Scheduled},
            author={Defazio, Aaron and Yang, Xingyu and Mehta, Harsh and others},
            booktitle={Advances in Neural Information Processing Systems},
            year={2024},
        }
        ```
    """

    name: str = eqx.field(default="schedule-free", static=True, kw_only=True)

    def draws(self, *, key: PRNGKeyArray) -> Draws:
        return _one_draw(0.0025)

    def optimizer(self, settings: Settings, steps: Float[Array, ""]) -> AbstractOptimizer:
        return OptaxOptimizer(optax.contrib.schedule_free_adamw, **settings)

    def budget(self) -> str:
        return _UNTUNED


_UNTUNED = "none: default settings"


def _one_draw(learning_rate: float) -> Draws:
    return {"learning_rate": jnp.full((1,), learning_rate, jnp.zeros(()).dtype)}


def scheduled_nadamw(
    learning_rate: Any, warm_up: Any, final: Any, steps: Any, **others: Any
) -> optax.GradientTransformation:
    """NAdamW with a linear warm-up times a cosine, both as fractions of the steps."""

    def schedule(count: Any) -> Any:
        done = jnp.minimum(count / steps, 1.0)
        cosine = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * done))
        return learning_rate * jnp.minimum((count + 1) / (warm_up * steps), 1.0) * cosine

    return optax.nadamw(schedule, **others)
