"""Optimizers on tasks, beside tuned baselines."""

import dataclasses
import functools as ft
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray

from .. import tasks as tasks_module
from .._kinds import check_count, check_counts
from .._names import suggest
from .._optimizers import AbstractOptimizer
from .._serialisation import versions
from ..tasks import AbstractTask, Split
from ._baselines import AbstractBaseline, TunedAdam
from ._evaluation import ABOUT, Evaluation
from ._plan import Plan
from ._progress import AbstractProgress, NoProgress
from ._results import Results
from ._store import AbstractStore, difference, Entry, NoStore
from ._tasks import evaluate_task
from ._training import HeldOutLoss, Programs


def evaluate(
    optimizers: Mapping[str, AbstractOptimizer],
    tasks: Sequence[str] | Mapping[str, AbstractTask | Callable[[], AbstractTask]],
    *,
    steps: int = 2000,
    seeds: int = 5,
    baselines: Sequence[AbstractBaseline] = (TunedAdam(),),
    horizons: Sequence[int] = (1,),
    time_budget: float = 600.0,
    held_out: Split = Split.TEST,
    results: AbstractStore = NoStore(),
    sweeps: AbstractStore = NoStore(),
    progress: AbstractProgress = NoProgress(),
    key: PRNGKeyArray,
) -> Evaluation:
    """Trains fresh networks on each task with each optimizer, and with tuned baselines.

    !!! Example

        ```python
        evaluation = eqs.evaluate(
            {"mine": mine}, ["digits_mlp"], steps=500, seeds=8, key=jr.key(0)
        )
        print(evaluation)
        evaluation.report("evaluation/report.md")
        ```

    Seeds are trained in one program, compiled once for each task and type of optimizer.
    An error on one task, or of one optimizer, is recorded and loses nothing else.

    **Arguments:**

    - `optimizers`: by name.
    - `tasks`: names that [`equistar.tasks.named`][] knows; or tasks, or functions that
        make them, by name.
    - `steps`: updates of each network: the length that baselines are tuned at.
    - `seeds`: networks for each optimizer and task.
    - `baselines`: hand-made optimizers to tune and compare with. Ratios and speed-ups are
        relative to the first [`equistar.TunedAdam`][] among them.
    - `horizons`: lengths of training, as multiples of `steps`; the first is always run.
    - `time_budget`: seconds that one longer training of all seeds may take; those that
        would take longer with the slowest optimizer of a task are left out, and named.
    - `held_out`: the split of the held-out losses.
    - `results`: where every result is kept, and read from if it was made with the same
        settings: `FolderStore("folder")` makes an evaluation resumable. Functions are
        compared by their code and by the values that it reads; what cannot be compared, a
        lock or an open file, is run again.
    - `sweeps`: where the sweeps of baselines are kept, for all evaluations.
    - `progress`: who is told how far it is.
    - `key`: a PRNG key, for parameters, minibatches and the draws of random searches.

    **Returns:**

    An [`equistar.Evaluation`][].

    **Raises:**

    `ValueError` if there is nothing to evaluate, if numbers or names are wrong, or if
    `results` holds those of an evaluation with other settings.
    """
    names = _check(optimizers, tasks, steps, seeds, baselines, horizons, time_budget)
    seed_key, draw_key = jr.split(key)
    plan = Plan(
        steps=steps,
        keys=jr.split(seed_key, seeds),
        draw_key=draw_key,
        horizons=tuple(sorted({1, *horizons})),
        time_budget=float(time_budget),
        held_out=HeldOutLoss(held_out),
        about=_about(steps, seeds, held_out, key),
        results=results,
        sweeps=sweeps,
        progress=progress,
        programs=Programs(),
    )
    reference = next((b.name for b in baselines if isinstance(b, TunedAdam)), "")
    _claim(results, plan.about, reference)
    runs, failures, notes = [], [], []
    for name, make in names.items():
        # No two tasks share a program: those of the last one may go.
        plan = dataclasses.replace(plan, programs=Programs())
        found = evaluate_task(plan, name, make, optimizers, baselines)
        runs += found.runs
        failures += found.failures
        notes += found.notes
    outcome = Results(tuple(runs), reference)
    return Evaluation(outcome, tuple(failures), tuple(notes), plan.about)


def _check(
    optimizers: Mapping[str, AbstractOptimizer],
    tasks: Sequence[str] | Mapping[str, AbstractTask | Callable[[], AbstractTask]],
    steps: int,
    seeds: int,
    baselines: Sequence[AbstractBaseline],
    horizons: Sequence[int],
    time_budget: float,
) -> dict[str, Callable[[], AbstractTask]]:
    check_count(steps, "steps")
    check_count(seeds, "seeds")
    check_counts(tuple(horizons), "horizons")
    if not time_budget >= 0:
        raise ValueError(f"`time_budget` must be at least 0; got {time_budget}.")
    everyone = [*optimizers, *(b.name for b in baselines)]
    if not everyone or not tasks:
        raise ValueError("An evaluation needs an optimizer or a baseline, and a task.")
    if len(set(everyone)) < len(everyone):
        raise ValueError(f"Optimizers and baselines need names of their own: {everyone}.")
    if not isinstance(tasks, Mapping):
        if len(set(tasks)) < len(tasks):
            raise ValueError(f"Each task counts once: {list(tasks)} has one twice.")
        unknown = sorted(set(tasks) - set(tasks_module.NAMED))
        if unknown:
            raise ValueError(
                f"There is no task '{unknown[0]}': "
                f"{suggest(unknown[0], sorted(tasks_module.NAMED))}."
            )
        return {name: ft.partial(tasks_module.named, name) for name in tasks}
    return {name: _maker(task) for name, task in tasks.items()}


def _maker(task: AbstractTask | Callable[[], AbstractTask]) -> Callable[[], AbstractTask]:
    return (lambda: task) if isinstance(task, AbstractTask) else task


def _about(steps: int, seeds: int, held_out: Split, key: PRNGKeyArray) -> dict[str, Any]:
    """What every result of an evaluation depends on."""
    return {
        "steps": steps,
        "seeds": seeds,
        "keys": np.asarray(jr.key_data(key)).tolist(),
        "held_out": held_out.value,
        "dtype": str(jnp.zeros(()).dtype),
        "device": jax.devices()[0].device_kind,
        "versions": versions(),
    }


def _claim(results: AbstractStore, about: dict[str, Any], reference: str) -> None:
    """Marks a store as this evaluation's; refuses that of another one."""
    there = results.load(ABOUT)
    if there is None:
        results.save(ABOUT, Entry({"settings": about, "reference": reference}, {}))
        return
    differs = difference(there.header["settings"], about)
    if differs:
        raise ValueError(
            f"The results that are there were made with other settings ({differs}): "
            "choose another folder, or remove them (`--overwrite` on the command line)."
        )
    if there.header["reference"] != reference and reference:
        results.save(ABOUT, Entry({"settings": about, "reference": reference}, {}))
