"""Which loss of a training step meta-training is on."""

import abc

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._keys import apart
from .._kinds import signature_of
from ..tasks import AbstractTask, Split


class AbstractMetaLoss(eqx.Module):
    """Which loss of a training step is recorded for meta-training."""

    @abc.abstractmethod
    def __call__(
        self,
        task: AbstractTask,
        before: PyTree[Array],
        after: PyTree[Array],
        training_loss: Float[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        """The loss that is recorded.

        **Arguments:**

        - `task`: what is trained.
        - `before`, `after`: the parameters before and after the update.
        - `training_loss`: on the minibatch, before the update.
        - `key`: the one that the minibatch was drawn with.
        """


class TrainingBatch(AbstractMetaLoss):
    """The loss on the minibatch, before the update: it is known anyway."""

    def __call__(
        self,
        task: AbstractTask,
        before: PyTree[Array],
        after: PyTree[Array],
        training_loss: Float[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        return training_loss


class AfterUpdate(AbstractMetaLoss):
    """The loss on the same minibatch after the update."""

    def __call__(
        self,
        task: AbstractTask,
        before: PyTree[Array],
        after: PyTree[Array],
        training_loss: Float[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        return task.loss(after, key=key)


class HeldOut(AbstractMetaLoss):
    """The loss before the update, on a separate minibatch from another split.

    Meta-training on `Split.INNER_VALID` rewards generalisation: on the training loss it
    fits the noise in Wang et al. (2021; see [`equistar.analysis.descent_iterates`][]).
    `Split.OUTER_VALID` is for watching a meta-training. An unknown split is a `ValueError`.
    """

    split: Split = eqx.field(default=Split.INNER_VALID, static=True, converter=Split)

    def __call__(
        self,
        task: AbstractTask,
        before: PyTree[Array],
        after: PyTree[Array],
        training_loss: Float[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> Float[Array, ""]:
        check_takes_split(task)
        return task.loss(before, key=apart(key, "held"), split=self.split)


def check_takes_split(task: AbstractTask) -> None:
    """Raises a `ValueError` for a task whose loss is on training data alone."""
    parameters = signature_of(task.loss).parameters
    catches_all = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    if "split" not in parameters and not catches_all:
        raise ValueError(
            f"`loss` of {type(task).__name__} takes no `split`, which the held-out loss is "
            "on: write `def loss(self, params, *, key, split=Split.TRAIN)`."
        )
