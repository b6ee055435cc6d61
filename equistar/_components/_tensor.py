"""What the parts see: one parameter tensor, its gradient, and its accumulators."""

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import Array, Float, Int

from .._means import means
from .._numerics import inverse, inverse_root
from ._factors import factor_means, Factors


@jtu.register_pytree_node_class
class Declared(dict[str, tuple[Any, ...]]):
    """The accumulators that parts declare, by name; any other is refused."""

    def __missing__(self, name: str) -> tuple[Any, ...]:
        raise ValueError(
            f"A part reads the accumulator '{name}' and does not declare it: add '{name}' "
            f"to the part's `reads`. Declared are {sorted(self)}."
        )

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        names = tuple(sorted(self))
        return tuple(self[name] for name in names), names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Iterable[Any]) -> "Declared":
        return cls(zip(names, values, strict=True))


class Tensor(eqx.Module):
    """One parameter tensor as the parts of a learned optimizer see it.

    **Attributes:**

    - `param`: the parameter before the update, in float32 or wider.
    - `grad`: its gradient.
    - `accumulators`: for each accumulator, by name, a tuple with one entry for each of
      its decays, already updated with `grad`.
    - `count`: the number of updates made before this one.
    - `summaries`: by name, what accumulators say of the whole tensor, if they do.
    """

    param: Float[Array, "*shape"]
    grad: Float[Array, "*shape"]
    accumulators: dict[str, tuple[Any, ...]] = eqx.field(converter=Declared)
    count: Int[Array, ""]
    summaries: dict[str, Any] = eqx.field(default_factory=dict)

    @property
    def momentum(self) -> tuple[Float[Array, "*shape"], ...]:
        """Exponential moving averages of the gradient, one for each decay."""
        return self.accumulators["momentum"]

    @property
    def second_moment(self) -> Float[Array, "*shape"]:
        """The exponential moving average `v` of the squared gradient."""
        return self.accumulators["second_moment"][0]

    @property
    def factored(self) -> tuple[Factors, ...]:
        """Factored second moments, one for each decay."""
        return self.accumulators["factored"]

    @property
    def factored_means(self) -> Factors:
        """Means of the rows' and of the columns' statistics, stacked for all decays."""
        known = self.summaries.get("factored")
        return factor_means(self.factored, self.param.shape) if known is None else known

    @property
    def inverse_rms(self) -> Float[Array, "*shape"]:
        """`R = 1 / sqrt(v + 1e-6)`."""
        return inverse_root(self.second_moment + 1e-6)

    @property
    def normalised_momentum(self) -> tuple[Float[Array, "*shape"], ...]:
        """Adam's direction without bias correction, `A_j = m_j R`, for each decay."""
        return tuple(m * self.inverse_rms for m in self.momentum)

    # The parts that need one of them ask for all: XLA then makes one pass for all parts.
    @property
    def moments(self) -> "Moments":
        """Means over the tensor of squares and products, in one pass over memory."""
        # With R squared, which needs no root: R itself, which the network reads too, XLA
        # would write to memory for both.
        p, ms = self.param, self.momentum
        square = inverse(self.second_moment + 1e-6)
        scaled = tuple(m * square for m in ms)
        squares = (m * x for m, x in zip(ms, scaled, strict=True))
        turns = (m * x for m, x in zip(ms[1:], scaled[:-1], strict=True))
        all_means = means((p * p, *squares, *turns))
        return Moments(all_means[0], all_means[1 : 1 + len(ms)], all_means[1 + len(ms) :])


class Moments(eqx.Module):
    """Means over one tensor.

    **Attributes:**

    - `param`: of the squared parameters.
    - `momentum`: of the squared `A_j`, one for each decay.
    - `turns`: of the products of each `A_j` with the next one.
    """

    param: Float[Array, ""]
    momentum: Float[Array, " decays"]
    turns: Float[Array, " pairs"]
