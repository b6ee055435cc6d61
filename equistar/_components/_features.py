"""Feature sets: what the per-element network reads of a tensor."""

import abc
import dataclasses
import itertools
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from ._inputs import check_inputs, Inputs, KINDS, known_mean_squares
from ._part import AbstractPart, asked, scoped, within
from ._tensor import Tensor


class AbstractFeatures(AbstractPart):
    """A set of network inputs, computed from one tensor and its accumulators.

    `reads` names the accumulators that it needs.
    """

    @abc.abstractmethod
    def __call__(self, tensor: Tensor) -> Inputs:
        """The inputs of one tensor, before the network normalises them."""


class NoFeatures(AbstractFeatures):
    """No inputs: for an optimizer without a network."""

    reads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, tensor: Tensor) -> Inputs:
        return Inputs()


class JoinedFeatures(AbstractFeatures):
    """The inputs of several feature sets, concatenated by kind.

    Arrays that two sets both compute are computed once by XLA.
    """

    sets: tuple[AbstractFeatures, ...]

    def __init__(self, *sets: AbstractFeatures):
        """**Arguments:**

        - `sets`: in the order in which the network gets their inputs of each kind.

        **Raises:**

        `ValueError` if there are none, or one is not a feature set.
        """
        if not sets or not all(isinstance(part, AbstractFeatures) for part in sets):
            raise ValueError(
                "JoinedFeatures needs one or more feature sets, say "
                "`JoinedFeatures(AdafactorFeatures(), TensorStatistics())`."
            )
        self.sets = sets

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for part in self.sets for name in part.reads)

    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        return scoped([asked(part, tensor) for part in self.sets])

    def __call__(self, tensor: Tensor) -> Inputs:
        each = [self._inputs(i, tensor) for i in range(len(self.sets))]
        known = lambda kind: _concatenated([known_mean_squares(x, kind) for x in each])
        return Inputs(
            element=tuple(itertools.chain(*(x.element for x in each))),
            row=_concatenated([x.row for x in each]),
            column=_concatenated([x.column for x in each]),
            tensor=_concatenated([x.tensor for x in each]),
            mean_squares={
                kind: known(kind)
                for kind in KINDS
                if any(kind in x.mean_squares for x in each)
            },
        )

    def _inputs(self, i: int, tensor: Tensor) -> Inputs:
        if tensor.means is not None:
            tensor = dataclasses.replace(tensor, means=within(tensor.means, i))
        inputs = self.sets[i](tensor)
        check_inputs(inputs, self.sets[i])
        return inputs


# A single one stays the same object: of a vector, rows and columns are one.
def _concatenated(stacks: list[Any]) -> Any:
    there = [stack for stack in stacks if len(stack)]
    if len(there) == 1:
        return there[0]
    tuples = any(isinstance(stack, tuple) for stack in there)
    apart = tuples or len({stack.shape[1:] for stack in there}) > 1
    return tuple(itertools.chain(*there)) if apart or not there else jnp.concatenate(there)
