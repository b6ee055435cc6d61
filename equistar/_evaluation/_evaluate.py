"""Optimizers on tasks, beside tuned baselines."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from .._keys import key_data_of
from .._kinds import as_count, as_steps, as_tuple, check_counts, check_key, check_kind
from .._optimizers import AbstractOptimizer
from .._serialisation import versions
from ..tasks import AbstractTask, Split
from ._baselines import AbstractBaseline
from ._checks import as_makers, as_optimizers, check_baselines, check_names
from ._evaluation import Evaluation
from ._plan import Plan
from ._progress import AbstractProgress, NoProgress
from ._rate_sweeps import TunedAdam
from ._results import Results
from ._store import ABOUT, AbstractStore, difference, Entry, NoStore
from ._tasks import evaluate_task
from ._training import HeldOutLoss, Programs


def evaluate(
    optimizers: Mapping[str, AbstractOptimizer | optax.GradientTransformation],
    tasks: Sequence[str] | Mapping[str, AbstractTask | Callable[[], AbstractTask]],
    *,
    steps: int = 2000,
    seeds: int = 5,
    baselines: Sequence[AbstractBaseline] = (TunedAdam(),),
    horizons: Sequence[int] = (1,),
    time_budget: float = 600.0,
    held_out: Split | str = Split.TEST,
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
    An error on one task, or of one optimizer, is recorded, and all other results are kept.

    **Arguments:**

    - `optimizers`: any of this library, or of optax, by name.
    - `tasks`: names that [`equistar.tasks.named`][] knows; or tasks, or functions that
        make them, by name.
    - `steps`: updates of each network: the length that baselines are tuned at.
    - `seeds`: networks for each optimizer and task.
    - `baselines`: hand-made optimizers to tune and compare with. Ratios and speed-ups are
        relative to the first [`equistar.TunedAdam`][] among them.
    - `horizons`: lengths of training, as multiples of `steps`. 1 is always one of them,
        and is run whatever it takes.
    - `time_budget`: seconds that one longer training of all seeds may take; those that
        would take longer with the slowest optimizer of a task are left out, and named.
    - `held_out`: the split of the held-out losses.
    - `results`: where every result is kept, and read from if it was made with the same
        settings: `FolderStore("folder")` makes an evaluation resumable. Functions are
        compared by their code and by the values that it reads, but for what they keep
        there themselves, as in a dictionary of data that have been loaded; what cannot be
        compared, a generator say, is run again.
    - `sweeps`: where the sweeps of baselines are kept, for all evaluations.
    - `progress`: who is told how far it is.
    - `key`: a PRNG key, for parameters, minibatches and the draws of random searches.

    **Returns:**

    An [`equistar.Evaluation`][].

    **Raises:**

    `ValueError` if an argument is not of its kind, if there is nothing to evaluate, if
    numbers or names are wrong, or if `results` holds those of an evaluation with other
    settings.
    """
    steps, seeds = as_steps(steps, "steps"), as_count(seeds, "seeds")
    horizons, split = _checked_horizons(horizons), Split(held_out)
    _check_budget(time_budget)
    _check_helpers(results, sweeps, progress, key)
    contestants, makers = as_optimizers(optimizers), as_makers(tasks)
    check_baselines(baselines)
    check_names(contestants, baselines)
    seed_key, draw_key = jr.split(key)
    plan = Plan(
        steps=steps,
        keys=jr.split(seed_key, seeds),
        draw_key=draw_key,
        horizons=horizons,
        time_budget=float(time_budget),
        held_out=HeldOutLoss(split),
        about=_about(steps, seeds, split, key),
        results=results,
        sweeps=sweeps,
        progress=progress,
        programs=Programs(),
    )
    reference = next((b.name for b in baselines if isinstance(b, TunedAdam)), "")
    _claim(results, plan.about, reference)
    # No two tasks share a program: those of the last one may go.
    fresh = lambda: dataclasses.replace(plan, programs=Programs())
    found = [
        evaluate_task(fresh(), name, make, contestants, baselines)
        for name, make in makers.items()
    ]
    outcome = Results(tuple(r for f in found for r in f.runs), reference)
    failures = tuple(x for f in found for x in f.failures)
    return Evaluation(
        outcome, failures, tuple(n for f in found for n in f.notes), plan.about
    )


def _checked_horizons(horizons: Sequence[int]) -> tuple[int, ...]:
    check_kind(horizons, Sequence, "`horizons`", "a list of whole numbers, say `(1, 4)`")
    horizons = as_tuple(list(horizons))
    check_counts(horizons, "horizons")
    return tuple(sorted({1, *horizons}))


def _check_budget(time_budget: float) -> None:
    check_kind(time_budget, int | float | np.number, "`time_budget`", "a number of seconds")
    if not time_budget >= 0:
        raise ValueError(f"`time_budget` must be at least 0; got {time_budget}.")


def _check_helpers(
    results: AbstractStore,
    sweeps: AbstractStore,
    progress: AbstractProgress,
    key: PRNGKeyArray,
) -> None:
    wanted = "a store, say `FolderStore('folder')`"
    check_kind(results, AbstractStore, "`results`", wanted)
    check_kind(sweeps, AbstractStore, "`sweeps`", wanted)
    check_kind(progress, AbstractProgress, "`progress`")
    check_key(key)


def _about(steps: int, seeds: int, held_out: Split, key: PRNGKeyArray) -> dict[str, Any]:
    """What every result of an evaluation depends on."""
    return {
        "steps": steps,
        "seeds": seeds,
        "keys": key_data_of(key),
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
