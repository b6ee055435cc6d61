"""Evaluation on held-out tasks while a run is made."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._devices import put_on_all_devices
from .._inner_training import training_curves
from .._keys import apart
from .._meta_training import Metrics
from .._optimizers import AbstractOptimizer
from ..tasks import AbstractTask
from ._output import CommandError
from ._run_files import JsonLines, read_json_lines
from ._watchers import AbstractWatcher


class HeldOutEvaluation(AbstractWatcher):
    """The mean training loss of fresh networks, every so many meta-steps.

    It draws from keys of its own, the same each time, and so changes nothing of the run;
    what stands in its file after a kill is made again to the same numbers. Each task is
    compiled once.
    """

    def __init__(
        self,
        tasks: Mapping[str, AbstractTask],
        *,
        every: int,
        seeds: int,
        steps: int,
        seed: int,
        told: Sequence[Callable[[int, dict[str, Any]], None]],
    ):
        """**Arguments:**

        - `tasks`: by name.
        - `every`: meta-steps between two evaluations; there is one before the first.
        - `seeds`: networks of each task.
        - `steps`: updates of each.
        - `seed`: of the networks and the minibatches.
        - `told`: are given the meta-step and the row of `evaluation.jsonl`.
        """
        self.tasks = tasks
        self.every = every
        self.steps = steps
        # Apart from those that the run is made of, which come from the same seed.
        self.keys = jr.split(apart(jr.key(seed), "eval"), seeds)
        self.told = told

    def begin(self, history: Sequence[Metrics], theta: PyTree) -> None:
        made = len(history)
        # That of the last meta-step may have been lost, or not: it is made again.
        self.tasks, self.keys = put_on_all_devices((dict(self.tasks), self.keys))
        if made % self.every == 0:
            self._evaluate(made, theta)

    def step(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        if step % self.every == 0:
            self._evaluate(step, theta)

    def end(self) -> None:
        pass

    def _evaluate(self, step: int, theta: PyTree) -> None:
        means = {
            name: np.asarray(jax.device_get(_means(task, theta, self.steps, self.keys)))
            for name, task in self.tasks.items()
        }
        count = len(self.keys)
        error = lambda x: x.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        row = {
            "step": step,
            "mean_loss": {name: float(x.mean()) for name, x in means.items()},
            "standard_error": {name: float(error(x)) for name, x in means.items()},
            "updates": self.steps,
            "networks": count,
        }
        for tell in self.told:
            tell(step, row)


@eqx.filter_jit
def _means(
    task: AbstractTask, optimizer: AbstractOptimizer, steps: int, keys: Array
) -> Float[Array, " seeds"]:
    losses = training_curves(task, optimizer, steps=steps, keys=keys)
    lower, upper = task.loss_bounds
    # As meta-training records them, so that one diverged network does not hide the rest.
    safe = jnp.clip(jnp.where(jnp.isfinite(losses), losses, upper), lower, upper)
    return jnp.mean(safe, axis=1)


class EvaluationLines(AbstractWatcher):
    """evaluation.jsonl: a line for each evaluation, none twice.

    Those of another number of networks or updates are refused, so that a run has to tell
    it before whatever changes the folder.
    """

    def __init__(self, path: pathlib.Path, every: int, updates: int, networks: int):
        self.lines = JsonLines(path)
        self.every = every
        self.made_by = {"updates": updates, "networks": networks}

    def begin(self, history: Sequence[Metrics], theta: PyTree) -> None:
        # What is evaluated again goes.
        first = -(-len(history) // self.every) * self.every
        path = self.lines.path
        rows = read_json_lines(path)[0] if path.exists() else []
        rows = [row for row in rows if row.get("step", first) < first]
        for row in rows:
            if {k: row.get(k, n) for k, n in self.made_by.items()} != self.made_by:
                raise CommandError(
                    f"{path} holds evaluations of {row.get('networks')} networks and "
                    f"{row.get('updates')} updates: pass --evaluate-seeds and "
                    "--evaluate-steps as before, or move the file away."
                )
        self.lines.restart(rows)

    def step(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        pass

    def end(self) -> None:
        self.lines.close()

    def tell(self, step: int, row: dict[str, Any]) -> None:
        """Adds a line."""
        self.lines.append(row)
