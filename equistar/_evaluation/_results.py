"""What one optimizer did on one task, and what is read off many of these."""

import functools as ft
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Bool, Float

from ._statistics import (
    bootstrap_interval,
    diverged,
    final_losses,
    first_reached,
    interquartile_mean,
    log_ratios,
    mean_losses,
    quartiles,
)
from ._store import Entry


class Run(eqx.Module):
    """Training of a task by an optimizer, from several seeds.

    **Attributes:**

    - `task`, `optimizer`: their names.
    - `steps`: updates of each network.
    - `losses`: the training loss at each step, before its update.
    - `held_out`: the held-out loss at equal distances in steps, the last one at the end.
    - `seconds_per_step`: of one step of one seed, with its share of the held-out losses, in
        the program that trains all seeds: the median over segments of the training, without
        compilation.
    - `memory`: bytes of that program, all seeds together; -1 if it is not known.
    - `tuning`: how many settings were tried, in words.
    - `settings`: the chosen ones, for a baseline; otherwise empty.
    - `task_contents`: a digest of the task, its data included; empty if it is not known.
    """

    task: str
    optimizer: str
    steps: int
    losses: Float[np.ndarray, "seeds steps"]
    held_out: Float[np.ndarray, "seeds points"]
    seconds_per_step: float
    memory: int
    tuning: str
    settings: dict[str, float]
    task_contents: str = ""

    @property
    def mean(self) -> Float[np.ndarray, " seeds"]:
        """The mean training loss of each seed; infinite where it is not finite."""
        return mean_losses(self.losses)

    @property
    def final(self) -> Float[np.ndarray, " seeds"]:
        """The mean training loss of each seed over the last 10 % of the steps."""
        return final_losses(self.losses)

    @property
    def held_out_final(self) -> Float[np.ndarray, " seeds"]:
        """The held-out loss of each seed at the end."""
        return np.where(np.isfinite(self.held_out[:, -1]), self.held_out[:, -1], np.inf)

    @property
    def diverged(self) -> Bool[np.ndarray, " seeds"]:
        """Which seeds met a loss that is not finite, or end above their first loss."""
        return diverged(self.losses)

    def entry(self, settings: dict[str, Any]) -> Entry:
        """As a store keeps it, with the settings that it was made with."""
        header = {name: getattr(self, name) for name in _IN_HEADER}
        arrays = {"losses": self.losses, "held_out": self.held_out}
        return Entry({**header, "chosen": self.settings, "settings": settings}, arrays)

    @staticmethod
    def from_entry(entry: Entry) -> "Run":
        """From what `entry` made."""
        fields: dict[str, Any] = {name: entry.header[name] for name in _IN_HEADER}
        arrays = {name: entry.arrays[name] for name in ("losses", "held_out")}
        fields.update(arrays, settings=entry.header["chosen"])
        fields["task_contents"] = entry.header["settings"].get("task", "")
        return Run(**fields)


_IN_HEADER = "task", "optimizer", "steps", "seconds_per_step", "memory", "tuning"


class Failure(eqx.Module):
    """An error that an optimizer raised on a task.

    **Attributes:**

    - `task`, `optimizer`: their names.
    - `message`: of the error.
    """

    task: str
    optimizer: str
    message: str


class Summary(eqx.Module):
    """An optimizer over all tasks, relative to the reference.

    **Attributes:**

    - `log_ratio`: the interquartile mean, over all tasks and seeds, of
        $\\ln(\\bar l / \\bar l_{ref})$, the mean training losses of the same seed.
    - `low`, `high`: its 95 % interval, by a bootstrap over tasks, and seeds within them.
    - `tasks`: number of tasks that count: both finished, and the reference's loss is
        positive and finite on every seed.
    - `better`: number of those with a median ratio below 1.
    - `diverged`, `runs`: number of trainings that diverged, and of all.
    """

    log_ratio: float
    low: float
    high: float
    tasks: int
    better: int
    diverged: int
    runs: int


class Results(eqx.Module):
    """Runs by task, optimizer and number of steps, beside a reference optimizer.

    **Attributes:**

    - `runs`: those that finished.
    - `reference`: the name of the optimizer that ratios and speed-ups are relative to;
        empty if there is none.
    """

    runs: tuple[Run, ...]
    reference: str

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks."""
        return _unique(run.task for run in self.runs)

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The names of the optimizers, baselines included."""
        return _unique(run.optimizer for run in self.runs)

    @property
    def horizons(self) -> tuple[int, ...]:
        """The numbers of steps, increasing."""
        return tuple(sorted({run.steps for run in self.runs}))

    def find(self, task: str, optimizer: str, steps: int) -> Run | None:
        """The run of this task, optimizer and length, if it finished."""
        wanted = task, optimizer, steps
        matches = (r for r in self.runs if (r.task, r.optimizer, r.steps) == wanted)
        return next(matches, None)

    def speed_up(self, run: Run) -> Float[np.ndarray, " seeds"]:
        """The number of steps over the first step that reaches the reference's final loss.

        Zero if it is not reached; NaN without a reference.
        """
        reference = self.find(run.task, self.reference, run.steps)
        if reference is None:
            return np.full(len(run.losses), np.nan)
        return run.steps / first_reached(run.losses, reference.final)

    def log_ratio(self, run: Run) -> Float[np.ndarray, " seeds"]:
        """The logarithm of the mean training loss over the reference's, seed by seed."""
        reference = self.find(run.task, self.reference, run.steps)
        if reference is None:
            return np.full(len(run.losses), np.nan)
        return log_ratios(run.mean, reference.mean)

    def summary(self, optimizer: str, steps: int) -> Summary:
        """An optimizer over all tasks at one number of steps."""
        runs = [r for r in self.runs if r.optimizer == optimizer and r.steps == steps]
        # Resamples are drawn by number: equal results have equal intervals in any order.
        runs = sorted(runs, key=lambda run: run.task)
        ratios = [self.log_ratio(run) for run in runs]
        kept = [r for r in ratios if not np.any(np.isnan(r))]
        aggregate = low = high = float("nan")
        if kept:
            values = np.stack(kept)
            aggregate = float(interquartile_mean(values.reshape(-1)))
            low, high = bootstrap_interval(values, key=jr.key(0))
        better = sum(quartiles(r)[1] < 0 for r in kept)
        failed = ft.reduce(lambda n, r: n + int(np.sum(r.diverged)), runs, 0)
        total = sum(len(r.losses) for r in runs)
        return Summary(aggregate, low, high, len(kept), better, failed, total)


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
