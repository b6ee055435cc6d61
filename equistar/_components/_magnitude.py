"""Magnitude controllers: learned positive factors on a term of the update."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._kinds import check_parts
from .._numerics import exponential
from ._given import given_scale
from ._initializer import Initializer, release_init
from ._network import Head
from ._scale import AbstractScale, as_scale


class AbstractAggregation(eqx.Module):
    """How a log-magnitude is shared: by no elements, or by all those of a tensor."""

    @abc.abstractmethod
    def __call__(self, log_magnitude: Array) -> Array:
        """The shared log-magnitude; broadcasts to the shape of the given one."""


class PerElement(AbstractAggregation):
    """Every element has its own magnitude."""

    def __call__(self, log_magnitude: Array) -> Array:
        return log_magnitude


class PerTensor(AbstractAggregation):
    """One magnitude for a tensor: its log is the mean over the elements."""

    def __call__(self, log_magnitude: Array) -> Array:
        return jnp.mean(log_magnitude)


class AbstractMagnitude(eqx.Module):
    """A positive factor on a term of the update."""

    def __check_init__(self) -> None:
        check_parts(self)

    @abc.abstractmethod
    def __call__(self, hidden: tuple[Array, ...]) -> Array | float:
        """The factor; broadcasts to the tensor's shape.

        **Arguments:**

        - `hidden`: the network's hidden units, each an array of the tensor's shape.
        """


class NoMagnitudeController(AbstractMagnitude):
    """The factor 1."""

    def __call__(self, hidden: tuple[Array, ...]) -> float:
        return 1.0


class MagnitudeController(AbstractMagnitude):
    """The learned factor $\\exp(\\beta\\,a)$, with $a$ a head of the network.

    With the paper's $\\beta = 10^{-3}$ a head must output 700 to double a step. With larger
    values, say 0.1, it can change the step noticeably. See [`equistar.STAR`][] for the
    source.
    """

    head: Head
    scale: AbstractScale
    aggregation: AbstractAggregation

    def __init__(
        self,
        width: int = 4,
        scale: float | AbstractScale = 1e-3,
        aggregation: AbstractAggregation = PerElement(),
        init: Initializer = release_init,
        *,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `width`: hidden units of the network.
        - `scale`: $\\beta$, which multiplies the log-magnitude.
        - `aggregation`: `PerElement()`, or `PerTensor()` for one factor a tensor.
        - `init`: initialiser of the head's weights.
        - `key`: a PRNG key.

        **Raises:**

        `ValueError` if `aggregation` or `key` is not of its kind, `width` is not a whole
        number of at least 1, `scale` is no finite number and no scale, or `init` no
        initialiser.
        """
        self.head = Head(width, init, key=key)
        self.scale = as_scale(scale)
        self.aggregation = aggregation

    def __call__(self, hidden: tuple[Array, ...]) -> Float[Array, "..."]:
        return exponential(given_scale(self.scale) * self.aggregation(self.head(hidden)))
