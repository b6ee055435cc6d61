"""What a task is."""

import abc
import enum
from typing import NoReturn, TYPE_CHECKING

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._hash import hash_or_advice
from .._names import suggest


class Split(enum.Enum):
    """Which part of a task's data a loss is taken on.

    Where a split is asked for, its value will do: `"test"` for `Split.TEST`.
    """

    TRAIN = "train"
    INNER_VALID = "inner_valid"
    OUTER_VALID = "outer_valid"
    TEST = "test"

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        names = [split.value for split in cls]
        raise ValueError(f"There is no split {value!r}: {suggest(value, names)}.")


def split_bounds(n: int) -> list[tuple[Split, int, int]]:
    """Where the splits of `n` examples begin and end: 70 % train, 10 % for each other."""
    bounds = [0, round(0.7 * n), round(0.8 * n), round(0.9 * n), n]
    return list(zip(Split, bounds[:-1], bounds[1:], strict=True))


class AbstractTask(eqx.Module):
    """A stochastic loss that holds its data and draws its own minibatches.

    **Attributes:**

    - `loss_bounds`: `(lower, upper)`; meta-training clips recorded losses to it and
        records `upper` for a loss that is not finite. The loss itself, and so the inner
        gradient, is never clipped.
    """

    # Type checkers take an annotation for the first argument of every task, and let a
    # task choose between a field and a property only where there is none.
    if TYPE_CHECKING:
        loss_bounds = tuple[float, float]()
    else:
        loss_bounds: eqx.AbstractVar[tuple[float, float]]

    def __hash__(self) -> int:
        return hash_or_advice(self, super().__hash__, "`eqx.filter_jit(task.loss)`")

    @abc.abstractmethod
    def init(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        """Initial parameters: a pytree of floating-point arrays."""

    @abc.abstractmethod
    def loss(
        self, params: PyTree[Array], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        """The loss on a minibatch drawn with `key` from `split`.

        A model is computed in the parameters' dtype.
        """
