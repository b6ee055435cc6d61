"""What an evaluation is given: refused in one sentence, or as it is used inside."""

import functools as ft
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import optax

from .. import tasks as tasks_module
from .._inner_training import check_takes_split
from .._kinds import check_kind, signature_of
from .._names import suggest
from .._optimizers import AbstractOptimizer, OptaxOptimizer
from ..tasks import AbstractTask
from ._baselines import AbstractBaseline


def as_optimizers(optimizers: Any) -> dict[str, AbstractOptimizer]:
    """Optimizers by name, those of optax as ones of this library."""
    wanted = "a dictionary of optimizers by name, say `{'mine': mine}`"
    check_kind(optimizers, Mapping, "`optimizers`", wanted)
    return {name: _as_optimizer(name, each) for name, each in optimizers.items()}


def _as_optimizer(name: str, optimizer: Any) -> AbstractOptimizer:
    _check_name(name)
    kinds = AbstractOptimizer | optax.GradientTransformation
    wanted = "an optimizer, say `STAR(key=...)` or `optax.adam(1e-3)`"
    check_kind(optimizer, kinds, f"The optimizer '{name}'", wanted)
    if isinstance(optimizer, optax.GradientTransformation):
        return OptaxOptimizer(lambda: optimizer)
    return optimizer


def check_baselines(baselines: Any) -> None:
    """Raises a `ValueError` unless all are baselines."""
    check_kind(baselines, Sequence, "`baselines`", "a list, say `[TunedAdam()]`")
    for baseline in baselines:
        wanted = (
            "one that can be tuned, say `TunedAdam()`; an optimizer whose settings stay as "
            "they are belongs into `optimizers`"
        )
        check_kind(baseline, AbstractBaseline, "A baseline", wanted)


def check_names(optimizers: Iterable[str], baselines: Iterable[AbstractBaseline]) -> None:
    """Raises a `ValueError` unless there are some, each with a name of its own."""
    everyone = [*optimizers, *(b.name for b in baselines)]
    if not everyone:
        raise ValueError("An evaluation needs an optimizer or a baseline.")
    if len(set(everyone)) < len(everyone):
        raise ValueError(f"Optimizers and baselines need names of their own: {everyone}.")


def as_makers(tasks: Any) -> dict[str, Callable[[], AbstractTask]]:
    """Functions that make the tasks, by name."""
    if isinstance(tasks, Mapping):
        makers = {name: _maker(name, task) for name, task in tasks.items()}
    else:
        _check_known(tasks)
        makers = {name: ft.partial(tasks_module.named, name) for name in tasks}
    if not makers:
        raise ValueError("An evaluation needs a task.")
    return makers


def check_task(task: Any, name: str) -> None:
    """Raises a `ValueError` for what is no task, or has no held-out loss."""
    wanted = (
        "a task, say `equistar.tasks.digits_mlp()`, or a function without arguments that "
        "makes one"
    )
    check_kind(task, AbstractTask, f"The task '{name}'", wanted)
    check_takes_split(task)


def _check_name(name: Any) -> None:
    check_kind(name, str, "The name of an optimizer or a task", "a string, say `'mine'`")


def _maker(name: str, task: Any) -> Any:
    _check_name(name)
    if callable(task) and not isinstance(task, AbstractTask) and _needs_nothing(task):
        return task
    check_task(task, name)
    return lambda: task


def _needs_nothing(function: Callable[..., Any]) -> bool:
    """Whether it can be called without arguments, as far as it says."""
    try:
        signature_of(function).bind()
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def _check_known(tasks: Any) -> None:
    wanted = (
        "a list of names, say `['digits_mlp']`, or a dictionary of tasks by name, say "
        "`{'mine': task}`"
    )
    is_names = isinstance(tasks, Sequence) and all(isinstance(t, str) for t in tasks)
    if isinstance(tasks, str) or not is_names:
        # Nothing is a `Mapping` here, and so it is refused.
        check_kind(tasks, Mapping, "`tasks`", wanted)
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"Each task counts once: {list(tasks)} has one twice.")
    unknown = sorted(set(tasks) - set(tasks_module.NAMED))
    if unknown:
        raise ValueError(
            f"There is no task '{unknown[0]}': "
            f"{suggest(unknown[0], sorted(tasks_module.NAMED))}."
        )
