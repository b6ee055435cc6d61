"""Who is told of a run of meta-training as it goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.random as jr
from jaxtyping import PRNGKeyArray
from rich.console import Console

from .. import tasks
from .._keys import apart
from .._recipes import Recipe, recipe_text
from ._display import Display
from ._held_out import EvaluationLines, HeldOutEvaluation
from ._processes import Processes
from ._run_files import (
    FIGURE,
    MetricsLines,
    RecipeFile,
    save_weights,
    TensorBoard,
    WeightsFile,
)
from ._run_options import FolderOptions, WatchOptions
from ._watchers import AbstractWatcher


@dataclass
class RunWatchers:
    """The watchers of a run, as its options want them."""

    recipe: Recipe
    folder: FolderOptions
    watch: WatchOptions
    processes: Processes
    out: Console

    def all(self) -> list[AbstractWatcher]:
        """In the order in which they are told."""
        labels, output = self.recipe.tasks.labels, self.folder.output
        board = TensorBoard(output / "tensorboard", labels)
        boards = [board] if self.watch.tensorboard and self.processes.first else []
        watchers = self._reporters(boards) if self.processes.first else []
        if not self.watch.evaluate_every:
            return watchers
        lines = self._evaluation_lines()
        # What the lines refuse is refused while the folder is as it was.
        first = [lines] if self.processes.first else []
        return [*first, *watchers, self._evaluation(boards, lines)]

    def _reporters(self, boards: Sequence[TensorBoard]) -> list[AbstractWatcher]:
        """Those of the process that writes and prints."""
        recipe, output = self.recipe, self.folder.output
        labels, estimator = recipe.tasks.labels, recipe.estimator
        pairs = estimator.pairs * len(labels)
        weights = output / "weights.npz"
        keep = lambda theta, history: save_weights(weights, recipe, theta, history)
        return [
            RecipeFile(output / "recipe.json", recipe_text(recipe), output / FIGURE),
            MetricsLines(output / "metrics.jsonl", labels),
            *boards,
            WeightsFile(keep, self.folder.save_every, recipe.steps),
            Display(self.out, recipe.steps, pairs, estimator.members),
        ]

    def _evaluation(
        self, boards: Sequence[TensorBoard], lines: EvaluationLines
    ) -> HeldOutEvaluation:
        """That of the optimizer on fresh networks, which every process computes."""
        watch = self.watch
        show = lambda step, row: self.out.print(_evaluated(row), highlight=False)
        told = [lines.tell, show, *(b.evaluated for b in boards)]
        return HeldOutEvaluation(
            self._evaluation_tasks(),
            every=watch.evaluate_every,
            seeds=watch.evaluate_seeds,
            steps=watch.evaluate_steps,
            seed=self.recipe.seed,
            told=told if self.processes.first else [],
        )

    def _evaluation_lines(self) -> EvaluationLines:
        watch, path = self.watch, self.folder.output / "evaluation.jsonl"
        return EvaluationLines(
            path, watch.evaluate_every, watch.evaluate_steps, watch.evaluate_seeds
        )

    def _evaluation_tasks(self) -> dict[str, tasks.AbstractTask]:
        if self.watch.evaluate_task:
            return {name: tasks.named(name) for name in self.watch.evaluate_task}
        own = self.recipe.tasks
        return dict(zip(own.labels, own.build(key=tasks_key(self.recipe)), strict=True))


def tasks_key(recipe: Recipe) -> PRNGKeyArray:
    """Of the tasks that a recipe draws."""
    # Apart from the keys of the weights and the run, which the same seed is split into.
    return apart(jr.key(recipe.seed), "task")


def _evaluated(row: dict[str, Any]) -> str:
    means, errors = row["mean_loss"], row["standard_error"]
    each = (f"{name} {means[name]:.4f} ± {errors[name]:.4f}" for name in means)
    return f"meta-step {row['step']}, fresh networks: {', '.join(each)}"
