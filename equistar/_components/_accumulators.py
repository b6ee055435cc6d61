"""What is remembered of a tensor: moving averages, with meta-learned decays."""

import abc
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from .._lowering import twice, varying_as
from .._numerics import accumulator_dtype
from ._bias_correction import AbstractBiasCorrection, NoBiasCorrection
from ._factors import factor_means, factored_axes, Factors
from ._part import AbstractPart
from ._tensor import Tensor


class AbstractAccumulator(AbstractPart):
    """What is remembered of one tensor from update to update.

    `reads` names the accumulators that it needs; it sees them as they were before the
    update, in `averaged` as well ([`equistar.AbstractPart`][]).
    """

    @abc.abstractmethod
    def init(self, param: Float[Array, "*shape"]) -> tuple[Any, ...]:
        """The state before the first update, for one parameter tensor: a tuple of arrays.

        The number of arrays does not depend on the parameter's shape. They keep these
        dtypes: use float32 or wider, unless you handle rounding as
        [`equistar.InBFloat16`][] does. If `param` is concrete, shard them as it is.
        """

    @abc.abstractmethod
    def update(self, state: tuple[Any, ...], tensor: Tensor) -> tuple[Any, ...]:
        """The state after seeing a gradient.

        **Arguments:**

        - `state`: its own.
        - `tensor`: with the new gradient, and all accumulators as they were before it.
        """

    def summarise(self, state: tuple[Any, ...], tensor: Tensor) -> Any:
        """Numbers of the whole tensor, for `tensor.summaries`; by default none.

        They are computed for all tensors before any part is called, so that on several
        devices they cross together.

        **Arguments:**

        - `state`: its own, updated, in the dtype of `tensor`.
        - `tensor`: as `update` saw it.
        """
        del state, tensor
        return None


class AbstractMovingAverage(AbstractAccumulator):
    """An exponential moving average of a statistic of one tensor's gradient.

    Decays are meta-learned through an unconstrained offset $\\theta_b$ for each,
    initially zero: $1 - b = (1 - b_{init}) \\exp(10 \\theta_b)$.
    """

    offsets: eqx.AbstractVar[Float[Array, " decays"]]
    decays: eqx.AbstractVar[tuple[float, ...]]
    correction: eqx.AbstractVar[AbstractBiasCorrection]


class Momentum(AbstractMovingAverage):
    """Moving averages of the gradient: $m \\leftarrow b m + (1 - b) g$."""

    offsets: Float[Array, " decays"]
    decays: tuple[float, ...] = eqx.field(static=True)
    correction: AbstractBiasCorrection

    def __init__(
        self,
        decays: Iterable[float] = (0.9, 0.99, 0.999),
        correction: AbstractBiasCorrection = NoBiasCorrection(),
    ):
        """**Arguments:**

        - `decays`: the initial decays $b$, each in [0, 1).
        - `correction`: of the first updates, say [`equistar.BiasCorrection`][].

        **Raises:**

        `ValueError` if there is no decay, or one is not in [0, 1).
        """
        self.correction = correction
        self.decays = _check_decays(decays)
        self.offsets = jnp.zeros(len(self.decays))

    def init(self, param: Float[Array, "*shape"]) -> tuple[Any, ...]:
        return tuple(_zeros_like(param) for _ in self.decays)

    def update(self, state: tuple[Any, ...], tensor: Tensor) -> tuple[Any, ...]:
        complements = _complements(self, tensor.count)
        return tuple(
            _ema(m, tensor.grad, c) for m, c in zip(state, complements, strict=True)
        )


class SecondMoment(AbstractMovingAverage):
    """The moving average of the squared gradient: $v \\leftarrow b v + (1 - b) g^2$.

    The decay is clipped to [0, 1].
    """

    offsets: Float[Array, " decays"]
    decays: tuple[float, ...] = eqx.field(static=True)
    correction: AbstractBiasCorrection

    def __init__(
        self,
        decay: float = 0.999,
        correction: AbstractBiasCorrection = NoBiasCorrection(),
    ):
        """**Arguments:**

        - `decay`: the initial decay $b$, in [0, 1).
        - `correction`: of the first updates, say [`equistar.BiasCorrection`][].

        **Raises:**

        `ValueError` if the decay is not in [0, 1).
        """
        self.correction = correction
        self.decays = _check_decays((decay,))
        self.offsets = jnp.zeros(1)

    def init(self, param: Float[Array, "*shape"]) -> tuple[Any, ...]:
        return (_zeros_like(param),)

    def update(self, state: tuple[Any, ...], tensor: Tensor) -> tuple[Any, ...]:
        (complement,) = _complements(self, tensor.count)
        return (_ema(state[0], tensor.grad * tensor.grad, jnp.clip(complement, 0, 1)),)


class FactoredSecondMoment(AbstractMovingAverage):
    """Adafactor's factored moving averages of the squared gradient.

    With $d_0$ the largest axis and $d_1$ the second largest (of axes of one length, the
    later is the larger), a row statistic $r$ and a column statistic $c$:

    $$r \\leftarrow b\\,r + (1-b) \\operatorname{mean}_{d_0}(g^2 + 10^{-30}), \\qquad
    c \\leftarrow b\\,c + (1-b) \\operatorname{mean}_{d_1}(g^2 + 10^{-30})$$

    Scalars and vectors are not factored. Decays are clipped to [0, 1].

    ??? cite

        ```bibtex
        @article{shazeer2018adafactor,
            title={Adafactor: Adaptive Learning Rates with Sublinear Memory Cost},
            author={Shazeer, Noam and Stern, Mitchell},
            journal={arXiv:1804.04235},
            year={2018},
        }
        ```
    """

    offsets: Float[Array, " decays"]
    decays: tuple[float, ...] = eqx.field(static=True)
    correction: AbstractBiasCorrection

    def __init__(
        self,
        decays: Iterable[float] = (0.9, 0.99, 0.999),
        correction: AbstractBiasCorrection = NoBiasCorrection(),
    ):
        """**Arguments:**

        - `decays`: the initial decays $b$, each in [0, 1).
        - `correction`: of the first updates, say [`equistar.BiasCorrection`][].

        **Raises:**

        `ValueError` if there is no decay, or one is not in [0, 1).
        """
        self.correction = correction
        self.decays = _check_decays(decays)
        self.offsets = jnp.zeros(len(self.decays))

    def init(self, param: Float[Array, "*shape"]) -> tuple[Any, ...]:
        if param.ndim < 2:
            # No array occurs twice: then the state could not be donated.
            empty = lambda: jnp.zeros((0,), accumulator_dtype(param.dtype))
            return tuple(Factors(_zeros_like(param), empty()) for _ in self.decays)
        d1, d0 = factored_axes(param.shape)
        return tuple(
            Factors(_zeros_without(param, d0), _zeros_without(param, d1))
            for _ in self.decays
        )

    def update(self, state: tuple[Any, ...], tensor: Tensor) -> tuple[Any, ...]:
        grad = tensor.grad
        complements = [jnp.clip(c, 0, 1) for c in _complements(self, tensor.count)]
        if grad.ndim < 2:
            return tuple(
                Factors(_ema(f.row, grad * grad + 1e-30, c), f.column)
                for f, c in zip(state, complements, strict=True)
            )
        d1, d0 = factored_axes(grad.shape)
        # Each squares for itself: no array of squares is written for both.
        once, again = twice(grad)
        row = jnp.mean(once * once, d0) + 1e-30
        column = jnp.mean(again * again, d1) + 1e-30
        return tuple(
            Factors(_ema(f.row, row, c), _ema(f.column, column, c))
            for f, c in zip(state, complements, strict=True)
        )

    # Parts read the rows' mean alone. With the columns' each number waits for all that
    # the factors need of other devices.
    def summarise(self, state: tuple[Any, ...], tensor: Tensor) -> Factors | None:
        shape = tensor.param.shape
        return factor_means(state, shape) if len(shape) >= 2 else None


def _check_decays(decays: Iterable[float]) -> tuple[float, ...]:
    try:
        numbers = tuple(float(b) for b in decays)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(0 <= b < 1 for b in numbers):
        raise ValueError(
            "Decays must be one or more numbers in [0, 1), say (0.9, 0.99); got "
            f"{decays!r:.80}."
        )
    return numbers


# `1 - b` is computed directly: going through `b` in float32 loses digits.
def _complements(
    average: AbstractMovingAverage, count: Int[Array, ""]
) -> list[Float[Array, ""]]:
    return [
        average.correction((1 - b) * jnp.exp(10 * average.offsets[i]), count)
        for i, b in enumerate(average.decays)
    ]


@jax.custom_jvp
def _ema(average: Array, new: Array, complement: Float[Array, ""]) -> Array:
    return (1 - complement) * average + complement * new


# The complement's slope is one sum over the tensor, of a difference: not two sums.
@_ema.defjvp
def _ema_jvp(
    primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    (average, new, complement), (of_average, of_new, of_complement) = primals, tangents
    slope = (1 - complement) * of_average + complement * of_new
    return _ema(*primals), slope + (new - average) * of_complement


def _zeros_like(param: Array) -> Array:
    return jnp.zeros_like(param, dtype=accumulator_dtype(param.dtype))


def _zeros_without(param: Array, axis: int) -> Array:
    shape = param.shape[:axis] + param.shape[axis + 1 :]
    dtype = accumulator_dtype(param.dtype)
    sharding = getattr(param, "sharding", None)
    # While tracing only explicit axes are known: those of the others XLA chooses.
    if isinstance(param, jax.core.Tracer):
        sharding = jax.typeof(param).sharding
        if all(name is None for name in sharding.spec):
            sharding = None
    if not isinstance(sharding, NamedSharding):
        return varying_as(param, jnp.zeros(shape, dtype))
    spec = tuple(sharding.spec) + (None,) * (param.ndim - len(sharding.spec))
    reduced = PartitionSpec(*spec[:axis], *spec[axis + 1 :])
    zeros = jnp.zeros(shape, dtype, device=NamedSharding(sharding.mesh, reduced))
    return varying_as(param, zeros)
