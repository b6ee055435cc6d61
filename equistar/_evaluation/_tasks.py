"""All optimizers on one task; an error stays with the one that raised it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax.numpy as jnp

from .._optimizers import AbstractOptimizer
from ..tasks import AbstractTask
from ._baselines import AbstractBaseline
from ._checks import check_task
from ._fingerprint import fingerprint
from ._plan import Plan
from ._results import Failure, Run
from ._store import difference, digest, Entry, LEFT_OUT
from ._training import train_many
from ._tuning import as_batch, optimizers_of, tune


class TaskOutcome(eqx.Module):
    """What came of one task."""

    runs: list[Run] = eqx.field(default_factory=list)
    failures: list[Failure] = eqx.field(default_factory=list)
    notes: list[str] = eqx.field(default_factory=list)


class _Contestant(eqx.Module):
    """An optimizer that is ready to run: a batch of one, for a number of steps."""

    name: str
    batch: Callable[[int], AbstractOptimizer]
    tuning: str
    settings: dict[str, float]


def evaluate_task(
    plan: Plan,
    name: str,
    make: Callable[[], AbstractTask],
    optimizers: Mapping[str, AbstractOptimizer],
    baselines: Sequence[AbstractBaseline],
) -> TaskOutcome:
    """Tunes the baselines, then runs everyone at every horizon that can be afforded."""
    outcome = TaskOutcome()
    everyone = [*(b.name for b in baselines), *optimizers]
    try:
        task = make()
        check_task(task, name)
        contents = fingerprint(task)
    except Exception as e:
        for optimizer in everyone:
            _fail(plan, outcome, name, optimizer, plan.steps, e)
        return outcome
    contestants = []
    for baseline in baselines:
        try:
            contestants.append(_tuned(plan, name, task, baseline))
        except Exception as e:
            _fail(plan, outcome, name, baseline.name, plan.steps, e)
    contestants += [_given(label, o) for label, o in optimizers.items()]
    for horizon in plan.horizons:
        if not _affordable(plan, outcome, name, horizon):
            break
        steps = plan.steps * horizon
        for contestant in contestants:
            try:
                run = _run(plan, name, task, contents, contestant, steps)
                outcome.runs.append(run)
            except Exception as e:
                _fail(plan, outcome, name, contestant.name, steps, e)
    return outcome


def _tuned(
    plan: Plan, name: str, task: AbstractTask, baseline: AbstractBaseline
) -> _Contestant:
    sweep = tune(
        baseline,
        task,
        steps=plan.steps,
        segment=plan.segment,
        keys=plan.keys,
        key=plan.draw_key,
        programs=plan.programs,
        progress=plan.progress,
        label=f"{name}: {baseline.name}",
        cache=plan.sweeps,
        about={**plan.about, "task": name},
    )
    chosen = {n: jnp.asarray(x[[sweep.chosen]]) for n, x in sweep.settings.items()}
    batch = lambda steps: optimizers_of(baseline, chosen, steps)
    return _Contestant(baseline.name, batch, baseline.budget(), sweep.best())


def _given(name: str, optimizer: AbstractOptimizer) -> _Contestant:
    return _Contestant(name, lambda steps: as_batch(optimizer), "none", {})


def _run(
    plan: Plan,
    name: str,
    task: AbstractTask,
    contents: str,
    contestant: _Contestant,
    steps: int,
) -> Run:
    """One optimizer at one horizon, from the store where it was run before."""
    optimizers = contestant.batch(steps)
    about = digest(plan.about)
    settings = {"task": contents, "optimizer": fingerprint(optimizers), "settings": about}
    key = _key(name, contestant.name, steps)
    entry = plan.results.load(key)
    if entry is not None and "failure" not in entry.header:
        differs = difference(entry.header["settings"], settings)
        if not differs:
            plan.progress.say(f"{key}: there from before.")
            run = Run.from_entry(entry)
            if run.tuning != contestant.tuning:
                # The same optimizer, chosen from more draws or fewer.
                run = dataclasses.replace(run, tuning=contestant.tuning)
                plan.results.save(key, run.entry(settings))
            return run
        plan.progress.say(
            f"{key}: what is there was made with another "
            f"{' and '.join(n for n in settings if n in differs)}, and is made again."
        )
        unmade = {"failure": "not finished", "task": name, "optimizer": contestant.name}
        plan.results.save(key, Entry(unmade, {}))
    plan.progress.say(f"{key} steps, {len(plan.keys)} seeds ...")
    run = _train(plan, name, task, contestant, optimizers, steps)
    run = dataclasses.replace(run, task_contents=contents)
    plan.results.save(key, run.entry(settings))
    return run


def _train(
    plan: Plan,
    name: str,
    task: AbstractTask,
    contestant: _Contestant,
    optimizers: AbstractOptimizer,
    steps: int,
) -> Run:
    curves = train_many(
        task,
        optimizers,
        steps=steps,
        segment=plan.segment,
        keys=plan.keys,
        held_out=plan.held_out,
        programs=plan.programs,
        progress=plan.progress,
        label=_key(name, contestant.name, steps),
    )
    return Run(
        name,
        contestant.name,
        steps,
        curves.losses[0],
        curves.held_out[0],
        curves.seconds_per_step / len(plan.keys),
        curves.memory,
        contestant.tuning,
        contestant.settings,
    )


def _affordable(plan: Plan, outcome: TaskOutcome, name: str, horizon: int) -> bool:
    """Whether the slowest optimizer of the task can train so long."""
    seconds = [run.seconds_per_step * len(plan.keys) for run in outcome.runs]
    needed = max(seconds, default=0.0) * plan.steps * horizon
    if horizon == 1 or needed <= plan.time_budget:
        return True
    note = (
        f"{name} was not run for {plan.steps * horizon:,} steps, nor longer: it would have "
        f"taken {needed:.0f} s with the slowest optimizer, and {plan.time_budget:g} s were "
        "allowed."
    )
    outcome.notes.append(note)
    plan.progress.say(note)
    header = {LEFT_OUT: note, "task": name, "steps": plan.steps * horizon}
    plan.results.save(f"{name}, left out", Entry(header, {}))
    return False


def _fail(
    plan: Plan,
    outcome: TaskOutcome,
    task: str,
    optimizer: str,
    steps: int,
    error: Exception,
) -> None:
    """Records a failure where the run would stand, unless there is an earlier one."""
    first = next(iter(str(error).strip().splitlines()), "")
    message = f"{type(error).__name__}: {first}"
    outcome.failures.append(Failure(task, optimizer, message))
    plan.progress.say(f"{task}: {optimizer} failed: {message}")
    header = {"failure": message, "task": task, "optimizer": optimizer}
    name = _key(task, optimizer, steps)
    there = plan.results.load(name)
    if there is None or "failure" in there.header:
        plan.results.save(name, Entry(header, {}))


# Commas in names are doubled: "a, b" of "c" is not "a" of "b, c".
def _key(task: str, optimizer: str, steps: int) -> str:
    return ", ".join([*(n.replace(",", ",,") for n in (task, optimizer)), str(steps)])
