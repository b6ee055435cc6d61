"""How probable a decoder's output makes an input."""

import abc
import math

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from .._kinds import as_number


class AbstractLikelihood(eqx.Module):
    """A distribution of each input number, given one number of a decoder's output."""

    @property
    @abc.abstractmethod
    def support(self) -> tuple[float, float]:
        """The lowest and the highest input number that it allows."""

    @abc.abstractmethod
    def negative_log(
        self, outputs: Float[Array, "*shape"], x: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        """$-\\log p(x \\mid z)$ of each number, without constant terms."""


class BernoulliLikelihood(AbstractLikelihood):
    """Cross-entropy of inputs $x \\in [0, 1]$, as probabilities, and logits $a$.

    $$-x \\log \\sigma(a) - (1 - x) \\log(1 - \\sigma(a))$$
    """

    @property
    def support(self) -> tuple[float, float]:
        return 0.0, 1.0

    def negative_log(
        self, outputs: Float[Array, "*shape"], x: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        return optax.sigmoid_binary_cross_entropy(outputs, x)


class GaussianLikelihood(AbstractLikelihood):
    """Squared error: $(x - \\mu)^2 / 2 \\sigma^2$, without the constant of the density.

    **Attributes:**

    - `deviation`: $\\sigma$. If it is larger than all variation in the data, the best code
        carries no information.

    **Raises:**

    `ValueError` if `deviation` is not one positive and finite number.
    """

    deviation: float = eqx.field(
        default=1.0, static=True, converter=lambda x: as_number(x, "`deviation`", "0.1")
    )

    def __check_init__(self):
        if not 0 < self.deviation < math.inf:
            raise ValueError(
                f"`deviation` must be positive and finite; got {self.deviation}."
            )

    @property
    def support(self) -> tuple[float, float]:
        return -math.inf, math.inf

    def negative_log(
        self, outputs: Float[Array, "*shape"], x: Float[Array, "*shape"]
    ) -> Float[Array, "*shape"]:
        return 0.5 * jnp.square((x - outputs) / self.deviation)
