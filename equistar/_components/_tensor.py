"""What the parts see: one parameter tensor, its gradient, and its accumulators."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, Int

from .._numerics import inverse, inverse_root
from ._factors import factor_means, Factors


class _Named(dict[str, Any]):
    """By the names of accumulators; what is not there has a sentence of its own."""

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[str, ...]]:
        names = tuple(sorted(self))
        return tuple(self[name] for name in names), names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Iterable[Any]) -> "_Named":
        return cls(zip(names, values, strict=True))


@jtu.register_pytree_node_class
class Declared(_Named):
    """The accumulators that parts declare, by name; any other is refused."""

    def __missing__(self, name: str) -> Any:
        raise ValueError(
            f"A part reads the accumulator '{name}' and does not declare it: add '{name}' "
            f"to the part's `reads`. Declared are {sorted(self)}."
        )


@jtu.register_pytree_node_class
class Summaries(_Named):
    """What accumulators say of the whole tensor, by name; any other is refused."""

    def __missing__(self, name: str) -> Any:
        raise ValueError(
            f"A part reads the summary of the accumulator '{name}', which is not there: "
            f"add '{name}' to the part's `reads`, and read no summary in an accumulator, "
            f"which comes before them. There are those of {sorted(self)}."
        )


@jtu.register_pytree_node_class
class Means(Mapping[str, Any]):
    """The means over a tensor that a part asks for: a mapping by name.

    They are kept in one vector, because under `jax.vmap` each number that is cut out of it
    is a kernel of its own: `together` gives several at once. A name that was not asked for
    raises a `ValueError`.
    """

    def __init__(self, numbers: Float[Array, " means"], places: Mapping[str, int]):
        self._numbers = numbers
        self._places = dict(places)

    def __getitem__(self, name: str) -> Float[Array, ""]:
        return lax.squeeze(self.together([name]), (0,))

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def together(self, names: Sequence[str]) -> Float[Array, " names"]:
        """Several means as one vector.

        **Arguments:**

        - `names`: of the means, in the order that is wanted.

        **Returns:**

        A vector, at no cost if the names were asked for in this order.
        """
        places = [self._place(name) for name in names]
        cut = lambda start, n: lax.slice(self._numbers, (start,), (start + n,))
        first, n = places[0] if places else 0, len(places)
        if places == [*range(first, first + n)]:
            return cut(first, n)
        return jnp.concatenate([cut(place, 1) for place in places])

    def renamed(self, names: Mapping[str, str]) -> "Means":
        """Those of `names` alone, under the names that these are mapped to."""
        return Means(self._numbers, {new: self._place(old) for old, new in names.items()})

    def tree_flatten(self) -> tuple[tuple[Any], tuple[tuple[str, int], ...]]:
        return (self._numbers,), tuple(self._places.items())

    @classmethod
    def tree_unflatten(cls, places: Iterable[tuple[str, int]], leaves: Any) -> "Means":
        (numbers,) = leaves
        return cls(numbers, dict(places))

    def _place(self, name: str) -> int:
        if name not in self._places:
            raise ValueError(
                f"A part reads the mean '{name}' and does not ask for it: return the array "
                "by this name from `averaged` of the part, and of any part that holds it. "
                f"Asked for are {sorted(self)}."
            )
        return self._places[name]


def _as_means(means: Mapping[str, Any] | None) -> Means | None:
    if means is None or isinstance(means, Means):
        return means
    places = {name: i for i, name in enumerate(means)}
    return Means(jnp.stack(list(means.values())) if means else jnp.zeros(0), places)


# The names of means that all parts share begin with this.
SHARED = "tensor."


class Tensor(eqx.Module):
    """One parameter tensor as the parts of a learned optimizer see it.

    Python counts momenta from 0, as `momentum[0]` and the names in `products` do. Equations
    on other pages count from 1: $m_1$ and $A_1$ belong to the first momentum.

    **Attributes:**

    - `param`: the parameter before the update, in float32 or wider.
    - `grad`: its gradient.
    - `accumulators`: for each accumulator, by name, a tuple with one entry for each of
      its decays, already updated with `grad`.
    - `count`: the number of updates made before this one.
    - `summaries`: for each accumulator, by name, what its `summarise` returned.
    - `means`: by name, the means over the tensor that a part asks for
        ([`equistar.AbstractPart`][]); `None` where they are not known yet. Several of them
        are one vector in `means.together(names)`, which costs less than each apart.
    - `products`: products of arrays, by name, for the `averaged` of a part: `"tensor.p p"`,
        the squared parameters, and `"tensor.A_j A_k"` with $A_j = m_j R$, for
        j = 0, 1, ... and k = j or j + 1. Parts that ask for the same one share its mean.
    """

    param: Float[Array, "*shape"]
    grad: Float[Array, "*shape"]
    accumulators: dict[str, tuple[Any, ...]] = eqx.field(converter=Declared)
    count: Int[Array, ""]
    summaries: dict[str, Any] = eqx.field(default_factory=dict, converter=Summaries)
    means: Means | None = eqx.field(default=None, converter=_as_means)

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
        """`R = 1 / sqrt(v + 1e-6)`, at most 1000."""
        return inverse_root(self.second_moment + 1e-6)

    @property
    def normalised_momentum(self) -> tuple[Float[Array, "*shape"], ...]:
        """`A_j = m_j R`, for each decay; bias-corrected if the accumulators are."""
        return tuple(m * self.inverse_rms for m in self.momentum)

    # With R squared, which needs no root: R itself, which the network reads too, XLA would
    # write to memory for both.
    @property
    def products(self) -> dict[str, Float[Array, "*shape"]]:
        """Products of arrays whose means several parts need, by name."""
        ms, square = self.momentum, inverse(self.second_moment + 1e-6)
        pairs = [(j, k) for k in range(len(ms)) for j in (k - 1, k) if j >= 0]
        # Of a huge gradient this is 0, and not infinity times 0.
        scaled = {f"{SHARED}A_{j} A_{k}": ms[k] * (ms[j] * square) for j, k in pairs}
        return {f"{SHARED}p p": self.param * self.param} | scaled
