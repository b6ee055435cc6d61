"""The live displays of a meta-training run and of an evaluation."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from jaxtyping import PyTree
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from .._evaluation import AbstractProgress
from .._logger import AbstractLogger, Metrics, stack_metrics


# Of a long training, where there is no terminal.
_SECONDS_BETWEEN_LINES = 30.0


class ProgressLogger(AbstractLogger):
    """Shows meta-loss, speed and time left; a line now and then without a terminal."""

    progress: Progress
    task: int
    total: int
    # A logger is the one place that may remember: the smoothed loss, and which step of
    # this process was the first, and when.
    smoothed: list[float]
    began: list[tuple[int, float]]

    def __call__(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        now = time.monotonic()
        if not self.began:
            # The first step compiles: it would spoil the speed.
            self.began[:] = [(step, now)]
            self.smoothed[:] = [float(metrics.meta_loss)]
        first, started = self.began[0]
        made = step - first
        decay = min(0.98, made / (made + 1))
        value = decay * self.smoothed[0] + (1 - decay) * float(metrics.meta_loss)
        self.smoothed[:] = [value]
        speed = made / max(now - started, 1e-9)
        text = f"meta-loss {value:.4f}  {speed:.1f} steps/s"
        self.progress.update(self.task, completed=step, status=text)  # pyright: ignore
        plain = not self.progress.console.is_terminal
        if plain and (step == self.total or step % max(1, self.total // 10) == 0):
            left = f"  {(self.total - step) / speed:.0f} s left" if speed > 0 else ""
            self.progress.console.print(f"meta-step {step}/{self.total}  {text}{left}")


@contextmanager
def progress_logger(console: Console, total: int) -> Iterator[ProgressLogger]:
    """A logger for a run of `total` meta-steps."""
    columns = (
        TextColumn("meta-training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, status="compiling")
        yield ProgressLogger(bar, task, total, [], [])


class CheckpointLogger(AbstractLogger):
    """Writes what has been trained every so many meta-steps, then tells the display."""

    display: ProgressLogger
    every: int
    save: Callable[[PyTree, Metrics], None]
    history: list[Metrics]

    def __call__(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        self.display(step, metrics, theta)
        self.history.append(metrics)
        if step % self.every == 0:
            self.save(theta, stack_metrics(self.history))


@contextmanager
def meta_train_logger(
    console: Console,
    total: int,
    every: int,
    save: Callable[[PyTree, Metrics], None],
    history: Sequence[Metrics],
) -> Iterator[CheckpointLogger]:
    """A logger for a run of `total` meta-steps that is saved every `every` of them.

    `history` is of the meta-steps that were made before.
    """
    with progress_logger(console, total) as display:
        yield CheckpointLogger(display, every, save, list(history))


class EvaluationProgress(AbstractProgress):
    """A bar for the training that goes on; a line now and then without a terminal."""

    progress: Progress
    task: int
    # One-element list: when the last line was printed.
    printed: list[float]

    def say(self, text: str) -> None:
        self.progress.console.print(text, markup=False, highlight=False)

    def advance(self, label: str, done: int, total: int) -> None:
        self.progress.update(
            self.task,  # pyright: ignore
            completed=done,
            total=total,
            status=label,
        )
        now = time.monotonic()
        plain = not self.progress.console.is_terminal
        if plain and now - self.printed[0] > _SECONDS_BETWEEN_LINES:
            self.printed[:] = [now]
            self.say(f"{label}: {done}/{total} steps")


@contextmanager
def evaluation_progress(console: Console) -> Iterator[EvaluationProgress]:
    """The display of an evaluation."""
    columns = (
        TextColumn("{task.fields[status]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1, status="compiling")
        yield EvaluationProgress(bar, task, [time.monotonic()])
