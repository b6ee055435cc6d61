"""How the two members of a pair are perturbed, and what becomes of their difference."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._kinds import as_number


class AbstractSampling(eqx.Module):
    """The members of a pair, $\\theta + s_0 \\epsilon$ and $\\theta + s_1 \\epsilon$.

    **Attributes:**

    - `signs`: $(s_0, s_1)$. The pair estimates a gradient by
        $(L_0 - L_1) / (s_0 - s_1)$ times the noise over its variance.
    """

    signs: ClassVar[tuple[float, float]]


class AntitheticPairs(AbstractSampling):
    """$\\theta + \\epsilon$ and $\\theta - \\epsilon$: terms of even order cancel."""

    signs: ClassVar[tuple[float, float]] = (1.0, -1.0)


class ForwardDifference(AbstractSampling):
    """$\\theta + \\epsilon$ and $\\theta$ itself, whose loss is the baseline."""

    signs: ClassVar[tuple[float, float]] = (1.0, 0.0)


class AbstractShaping(eqx.Module):
    """Changes the difference of a pair's losses before the noise is multiplied by it."""

    @abc.abstractmethod
    def __call__(
        self, difference: Float[Array, " particles"]
    ) -> Float[Array, " particles"]:
        """The shaped difference of each pair.

        In a window, a difference is that of the two sums of losses, divided by the window's
        length. It is shaped separately for the episode that was running when the window
        began and for those that began inside it.
        """


class NoShaping(AbstractShaping):
    """The difference itself: the only shaping that leaves an estimator unbiased."""

    def __call__(
        self, difference: Float[Array, " particles"]
    ) -> Float[Array, " particles"]:
        return difference


class ClipDifference(AbstractShaping):
    """The difference, clipped to [-limit, limit]: no pair outweighs the others by far.

    **Attributes:**

    - `limit`: positive, in units of the loss.

    **Raises:**

    `ValueError` if `limit` is not a positive number.
    """

    limit: float = eqx.field(
        static=True, converter=lambda x: as_number(x, "`limit`", "0.1")
    )

    def __check_init__(self):
        if not self.limit > 0:
            raise ValueError(f"`limit` must be positive; got {self.limit}.")

    def __call__(
        self, difference: Float[Array, " particles"]
    ) -> Float[Array, " particles"]:
        return jnp.clip(difference, -self.limit, self.limit)


class SignDifference(AbstractShaping):
    """Only which member was better counts: 1, 0 or -1, times `scale`.

    **Attributes:**

    - `scale`: positive, in units of the loss.

    **Raises:**

    `ValueError` if `scale` is not a positive, finite number.
    """

    scale: float = eqx.field(
        default=1.0, static=True, converter=lambda x: as_number(x, "`scale`", "1.0")
    )

    def __check_init__(self):
        if not 0 < self.scale < math.inf:
            raise ValueError(f"`scale` must be positive and finite; got {self.scale}.")

    def __call__(
        self, difference: Float[Array, " particles"]
    ) -> Float[Array, " particles"]:
        return self.scale * jnp.sign(difference)
