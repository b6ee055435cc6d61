"""What the optimizer is meta-trained on, and for which loss."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, ExitStack
from dataclasses import dataclass
from typing import Literal

import jax.random as jr
from jaxtyping import PRNGKeyArray

from .. import tasks
from .._inner_training import (
    AbstractMetaLoss,
    AfterUpdate,
    HeldOut,
    InnerTraining,
    TrainingBatch,
)
from .._meta_training import (
    AbstractCombination,
    AbstractFeed,
    Mixture,
    NormalisedMean,
    Relative,
    RelativeFeed,
    SlabFeed,
    WeightedMean,
)
from .._names import suggest
from .._unrolls import AbstractUnroll
from ..tasks import AbstractFamily, AbstractTask


FAMILIES: dict[str, Callable[[], AbstractFamily]] = {
    "digits_perceptrons": lambda: tasks.PerceptronFamily(tasks.digits()),
    "wine_perceptrons": lambda: tasks.PerceptronFamily(tasks.wine()),
    "breast_cancer_perceptrons": lambda: tasks.PerceptronFamily(tasks.breast_cancer()),
    "quadratics": tasks.QuadraticFamily,
}
_META_LOSSES: dict[str, AbstractMetaLoss] = {
    "training": TrainingBatch(),
    "after-update": AfterUpdate(),
    "validation": HeldOut(),
}
_COMBINATIONS: dict[str, AbstractCombination] = {
    "mean": WeightedMean(),
    "normalised": NormalisedMean(),
}


@dataclass(frozen=True)
class TasksRecipe:
    """The tasks, one or a mixture of many."""

    task: tuple[str, ...] = ("digits_mlp",)
    """Names of tasks; a wrong one lists the right ones. Each has all its --pairs in every
    meta-step."""
    family: tuple[str, ...] = ()
    """Names of families that tasks are drawn from, once, at the start; --task without a
    name leaves these alone."""
    instances: int = 4
    """Tasks drawn from each family."""
    task_weights: tuple[float, ...] = ()
    """Of the tasks and then of the families, whose instances share theirs; equal if none
    are given."""
    references: tuple[float, ...] = ()
    """Losses that those of the tasks, and then of the families, are divided by, say tuned
    Adam's mean losses; 1 if none are given."""
    combine: Literal["mean", "normalised"] = "mean"
    """How gradients of several tasks become one; normalised puts tasks with large losses
    on a par with those with small ones."""
    reparametrise: float = 1.0
    """Above 1, each task is seen in other units: every tensor of weights is scaled by a
    number drawn between 1/R and R, say 1000."""
    meta_loss: Literal["training", "after-update", "validation"] = "training"
    """The loss to meta-train for: of the training batch before or after the update, or on
    held-out data."""

    refill_every: int = 100
    """Meta-steps on each piece of data that are larger than the device, as those of
    imagenet32_resnet and the lm1b tasks are."""

    def check(self) -> None:
        """Raises a `ValueError` for names and numbers that make no sense."""
        _known("task", self.task, tasks.NAMED)
        _known("family", self.family, FAMILIES)
        given = self.task + self.family
        if len(set(given)) < len(given):
            raise ValueError(
                f"A task or family is given twice in {given}: raise its weight, or "
                "`instances`, instead."
            )
        named = len(given)
        if not named:
            raise ValueError("Give at least one task or family, say digits_mlp.")
        if self.refill_every < 1:
            raise ValueError(f"`refill_every` must be at least 1; got {self.refill_every}.")
        if self.instances < 1:
            raise ValueError(f"`instances` must be at least 1; got {self.instances}.")
        _check_numbers(named, task_weights=self.task_weights, references=self.references)
        if not 1 <= self.reparametrise < math.inf:
            raise ValueError(
                f"`reparametrise` must be at least 1; got {self.reparametrise}."
            )

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each task of the mixture."""
        drawn = range(1, self.instances + 1)
        return self.task + tuple(f"{name}_{i}" for name in self.family for i in drawn)

    def build(self, *, key: PRNGKeyArray) -> tuple[AbstractTask, ...]:
        """The tasks; `key` draws those of families, and other units of weights.

        Of data larger than the device they have the first slab.
        """
        self.check()
        made = [tasks.named(name) for name in self.task] + self._drawn(key)
        return tuple(self._in_other_units(i, task, key) for i, task in enumerate(made))

    @contextmanager
    def unroll(
        self, *, key: PRNGKeyArray
    ) -> Iterator[AbstractUnroll | AbstractFeed | Mixture]:
        """The training of the tasks as what `meta_train` goes through.

        It is a context, in which data larger than the device are open.
        """
        self.check()
        loss = _META_LOSSES[self.meta_loss]
        with ExitStack() as opened:

            def named(i: int, name: str) -> InnerTraining | SlabFeed:
                in_units = lambda task: self._in_other_units(i, task, key)
                if name not in tasks.STREAMED:
                    return InnerTraining(in_units(tasks.named(name)), loss)
                streamed = tasks.STREAMED[name]
                slabs = opened.enter_context(streamed.slabs(1))
                make = lambda data: in_units(streamed.make(data))
                return SlabFeed(slabs, make, self.refill_every, loss)

            unrolls: list[AbstractUnroll | AbstractFeed] = []
            unrolls += [named(i, name) for i, name in enumerate(self.task)]
            unrolls += [
                InnerTraining(self._in_other_units(i, task, key), loss)
                for i, task in enumerate(self._drawn(key), start=len(self.task))
            ]
            references = self._for_each(self.references)
            unrolls = [_relative(u, r) for u, r in zip(unrolls, references, strict=True)]
            if len(unrolls) == 1:
                yield unrolls[0]
            else:
                yield Mixture(unrolls, self._weights(), _COMBINATIONS[self.combine])

    def _drawn(self, key: PRNGKeyArray) -> list[AbstractTask]:
        """The instances of the families."""
        draw_key, _ = jr.split(key)
        made = []
        for i, name in enumerate(self.family):
            family = FAMILIES[name]()
            keys = jr.split(jr.fold_in(draw_key, i), self.instances)
            made += [family.sample(key=k) for k in keys]
        return made

    def _in_other_units(
        self, i: int, task: AbstractTask, key: PRNGKeyArray
    ) -> AbstractTask:
        if self.reparametrise == 1:
            return task
        _, scale_key = jr.split(key)
        low, high = 1 / self.reparametrise, float(self.reparametrise)
        return tasks.Reparametrised(task, low, high, key=jr.fold_in(scale_key, i))

    def _weights(self) -> tuple[float, ...]:
        named, weights = len(self.task), self._for_each(self.task_weights)
        return weights[:named] + tuple(w / self.instances for w in weights[named:])

    def _for_each(self, given: tuple[float, ...]) -> tuple[float, ...]:
        """A number for each task and instance of a family; 1 if none are given."""
        named = len(self.task)
        given = given or (1.0,) * (named + len(self.family))
        drawn = [x for x in given[named:] for _ in range(self.instances)]
        return given[:named] + tuple(drawn)


def _relative(
    unroll: AbstractUnroll | AbstractFeed, reference: float
) -> AbstractUnroll | AbstractFeed:
    if reference == 1:
        return unroll
    if isinstance(unroll, AbstractFeed):
        return RelativeFeed(unroll, reference)
    return Relative(unroll, reference)


def _check_numbers(needed: int, **settings: tuple[float, ...]) -> None:
    wrong = {k: len(v) for k, v in settings.items() if v and len(v) != needed}
    if wrong:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in wrong)
        raise ValueError(
            f"There must be a number for each task and family, {needed}, in "
            f"{' and '.join(f'`{name}`, which has {n}' for name, n in wrong.items())}: for "
            f"other tasks than a recipe's own give {flags} anew."
        )
    for name, given in settings.items():
        if not all(0 < x < math.inf for x in given):
            raise ValueError(f"`{name}` must be positive and finite; got {given}.")


def _known(kind: str, names: tuple[str, ...], there: dict[str, Callable]) -> None:
    for name in names:
        if name not in there:
            raise ValueError(
                f"There is no {kind} '{name}': {suggest(name, sorted(there))}."
            )
