"""Gains: a learned factor on the whole step of one tensor."""

import abc
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._kinds import as_number, is_real
from ._features import AbstractFeatures
from ._inputs import check_inputs
from ._part import AbstractPart, asked
from ._statistics import TensorStatistics
from ._tensor import Tensor


class AbstractGain(AbstractPart):
    """A positive factor on the blackbox and the nominal term of one tensor.

    `reads` names the accumulators that it needs.
    """

    @abc.abstractmethod
    def __call__(self, tensor: Tensor) -> Array | float:
        """The factor: one positive number for the tensor."""


class NoGain(AbstractGain):
    """The factor 1."""

    def __call__(self, tensor: Tensor) -> float:
        return 1.0


class TensorGain(AbstractGain):
    """The log-linear factor $\\exp(s\\,w \\cdot x)$ of a tensor's statistics $x$. Ours.

    The per-element network sees inputs that are normalised over the tensor. The gain sees
    what the normalisation removes: how large a tensor and its entries are, how much of its
    gradients is noise, and how long the training has gone on. It is linear in bounded
    statistics, so it does nothing unexpected on tensors that meta-training did not show.
    The logarithm is clipped to [-9, 7].
    """

    weights: Float[Array, " statistics"]
    statistics: AbstractFeatures
    scale: float = eqx.field(static=True)
    bounds: ClassVar[tuple[float, float]] = (-9.0, 7.0)

    def __init__(
        self,
        statistics: AbstractFeatures = TensorStatistics(),
        start: Sequence[float] = (0.0,) * 11,
        scale: float = 3.0,
    ):
        """**Arguments:**

        - `statistics`: a feature set whose inputs per tensor are read, and no others.
        - `start`: $s\\,w$ at the start, a number for each of them. By default the factor
            is 1 at first.
        - `scale`: $s$, how much faster than other meta-parameters $w$ is learned.

        **Raises:**

        `ValueError` if `statistics` is not a feature set, `start` is not a sequence of
        finite numbers, or `scale` is not positive and finite; at the first use, if the
        statistics are not as many as `start`.
        """
        if not isinstance(statistics, AbstractFeatures):
            raise ValueError("`statistics` must be a feature set: TensorStatistics(), say.")
        self.scale = as_number(scale, "`scale`", "3.0")
        if not _are_finite(start) or not 0 < self.scale < math.inf:
            raise ValueError(
                "`start` must be finite numbers, one for each statistic, and `scale` "
                f"positive and finite; got {start} and {scale}."
            )
        self.statistics = statistics
        self.weights = jnp.array(start, jnp.zeros(()).dtype) / self.scale

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.statistics.reads)

    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        return asked(self.statistics, tensor)

    def __call__(self, tensor: Tensor) -> Float[Array, ""]:
        inputs = self.statistics(tensor)
        check_inputs(inputs, self.statistics)
        statistics = inputs.tensor
        if len(statistics) != len(self.weights):
            raise ValueError(
                f"The statistics are {len(statistics)} numbers but the gain was built for "
                f"{len(self.weights)}: pass `start` with {len(statistics)} numbers."
            )
        product = jnp.dot(
            self.scale * self.weights, statistics, precision=lax.Precision.HIGHEST
        )
        return jnp.exp(jnp.clip(product, *self.bounds))


def _are_finite(start: Any) -> bool:
    try:
        numbers = np.asarray(start)
        return numbers.ndim == 1 and is_real(numbers) and bool(np.all(np.isfinite(numbers)))
    except (TypeError, ValueError):
        return False
