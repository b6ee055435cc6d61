"""The live display of an evaluation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from .._evaluation import AbstractProgress


# Of a long training, where there is no terminal.
_SECONDS_BETWEEN_LINES = 30.0


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
