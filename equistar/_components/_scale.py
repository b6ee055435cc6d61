"""Positive scales: fixed numbers, or meta-learned ones stored as their logarithm."""

import abc
import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kinds import as_number


class AbstractScale(eqx.Module):
    """A number that multiplies a term or a log-magnitude."""

    @abc.abstractmethod
    def __call__(self) -> float | Float[Array, ""]:
        """The number."""


class FixedScale(AbstractScale):
    """A scale that meta-training leaves alone. May be zero or negative."""

    value: float = eqx.field(static=True)

    def __init__(self, value: float):
        """**Arguments:**

        - `value`: the number, finite.

        **Raises:**

        `ValueError` if it is not finite.
        """
        self.value = as_number(value, "A scale", "1e-3")
        if not math.isfinite(self.value):
            raise ValueError(f"A scale must be finite; got {value}.")

    def __call__(self) -> float:
        return self.value


class LearnedScale(AbstractScale):
    """A positive scale that is meta-learned: $\\exp(\\theta)$, $\\theta$ unconstrained."""

    log: Float[Array, ""]

    def __init__(self, value: float):
        """**Arguments:**

        - `value`: the initial value, positive.

        **Raises:**

        `ValueError` if it is not positive and finite.
        """
        number = as_number(value, "A scale", "1e-3")
        if not 0 < number < math.inf:
            raise ValueError(f"A learned scale must start positive; got {value}.")
        self.log = jnp.array(math.log(number), jnp.zeros(()).dtype)

    def __call__(self) -> Float[Array, ""]:
        return jnp.exp(self.log)


def as_scale(value: float | AbstractScale) -> AbstractScale:
    """`value` itself if it is a scale, else a fixed one."""
    return value if isinstance(value, AbstractScale) else FixedScale(value)
