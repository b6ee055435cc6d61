"""Means over a tensor from some of its elements."""

import equinox as eqx
from jaxtyping import Array, Float

from .._components import (
    AbstractAccumulator,
    AbstractBlackboxTerm,
    AbstractFeatures,
    AbstractGain,
    AbstractNetwork,
    AbstractNominalTerm,
    AbstractWeightDecay,
    some_of_each_row,
)
from .._kinds import as_count, check_kind
from ._learned import AbstractLearnedOptimizer


# What is run as it is in the class that all learned optimizers share.
_RULE = "sample", "update", "init", "step_tensor", "accumulate_tensor", "init_tensor"


def _is_own(kind: type, name: str) -> bool:
    return getattr(kind, name) is not getattr(AbstractLearnedOptimizer, name)


class SampledMeans(AbstractLearnedOptimizer):
    """A learned optimizer whose parts get their means from some of a matrix. Ours.

    A learned optimizer must know the mean square of each input $x$ of its network, over the
    whole tensor, before it can make a step. That is up to three tenths of the time of an
    update on a CPU. With $S$ one in `every` elements of each row and of each column,

    $$mean(x^2) \\approx \\frac{1}{|S|} \\sum_{ij \\in S} x_{ij}^2$$

    These are the same elements in every step. Each row and each column has its share of
    them, because inputs differ most between these; they are those of the two longest axes.
    Vectors and small matrices keep all of their elements. So do moving averages, factored
    ones too, and features that leave mean squares to the network
    ([`equistar.AbstractPart`][]).

    The state, the meta-parameters and the update rule are those of `optimizer`, which may
    be meta-trained already. Rows and columns in another order are other elements of $S$, so
    that it is not equivariant to permutations.
    """

    optimizer: AbstractLearnedOptimizer
    every: int = eqx.field(static=True)
    least: int = eqx.field(static=True)

    def __init__(
        self, optimizer: AbstractLearnedOptimizer, every: int = 16, least: int = 1024
    ):
        """**Arguments:**

        - `optimizer`: the learned optimizer to wrap.
        - `every`: of so many elements of a row or a column, means are taken over one. It
            must divide the lengths of both axes: otherwise the next smaller number that
            does is taken, if need be 1, which is all elements. Of an odd length it may
            leave up to a hundredth over, which is left out.
        - `least`: elements that remain, at least: a matrix with fewer than twice as many
            keeps all.

        **Raises:**

        `ValueError` if `optimizer` is not a learned optimizer, or has methods of its own
        in place of the update rule's, as another SampledMeans has, or a number is below 1.
        """
        wanted = "a learned optimizer itself, say `STAR(key=...)`: wrap this one in others"
        check_kind(optimizer, AbstractLearnedOptimizer, "`optimizer`", wanted)
        own = [name for name in _RULE if _is_own(type(optimizer), name)]
        if own:
            raise ValueError(
                "SampledMeans takes the parts of an optimizer, and "
                f"{type(optimizer).__name__} has a `{own[0]}` of its own, which it would "
                "lose: wrap one that only differs in its parts."
            )
        self.optimizer = optimizer
        self.every = as_count(every, "every")
        self.least = as_count(least, "least")

    def sample(self, x: Float[Array, "*shape"]) -> Float[Array, "*sampled"]:
        return some_of_each_row(x, self.every, self.least)

    @property
    def accumulators(self) -> dict[str, AbstractAccumulator]:
        return self.optimizer.accumulators

    @property
    def features(self) -> AbstractFeatures:
        return self.optimizer.features

    @property
    def network(self) -> AbstractNetwork:
        return self.optimizer.network

    @property
    def blackbox(self) -> AbstractBlackboxTerm:
        return self.optimizer.blackbox

    @property
    def nominal(self) -> AbstractNominalTerm:
        return self.optimizer.nominal

    @property
    def weight_decay(self) -> AbstractWeightDecay:
        return self.optimizer.weight_decay

    @property
    def gain(self) -> AbstractGain:
        return self.optimizer.gain
