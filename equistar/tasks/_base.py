"""What a task is."""

import abc
import enum

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree


class Split(enum.Enum):
    """Which part of a task's data a loss is taken on."""

    TRAIN = "train"
    INNER_VALID = "inner_valid"
    OUTER_VALID = "outer_valid"
    TEST = "test"


class AbstractTask(eqx.Module):
    """A stochastic loss that holds its data and draws its own minibatches.

    **Attributes:**

    - `loss_bounds`: `(lower, upper)`; meta-training clips recorded losses to it and
        records `upper` for a loss that is not finite. The loss itself, and so the inner
        gradient, is never clipped.
    """

    loss_bounds: eqx.AbstractVar[tuple[float, float]]

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
