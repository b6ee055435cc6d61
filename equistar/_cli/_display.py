"""The live display of a meta-training run."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from jaxtyping import PyTree
from rich.console import Console, Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from .._meta_training import Metrics
from .._smoothing import Smoother
from ._watchers import AbstractWatcher, Watched, watching


# Without a terminal there is a line at each tenth of the run, and after so many seconds.
_SECONDS_BETWEEN_LINES = 60.0


class Display(AbstractWatcher):
    """Shows losses, gradient, trouble, speed and time left; lines without a terminal."""

    def __init__(self, console: Console, total: int, pairs: int, members: int):
        """**Arguments:**

        - `console`: where to.
        - `total`: meta-steps of the run.
        - `pairs`: of all tasks together.
        - `members`: networks of each.
        """
        self.console = console
        self.total = total
        self.pairs = pairs
        self.members = members
        self.smoother, self.loss = Smoother(), np.nan
        # The first meta-step of this process and when it was made, and the last line.
        self.began: tuple[int, float] | None = None
        self.printed = time.monotonic()
        columns = (
            TextColumn("meta-training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=console)
        self.task = self.progress.add_task("", total=total)
        live = console.is_terminal and not console.quiet
        self.live = Live(console=console, auto_refresh=True) if live else None

    def begin(self, history: Sequence[Metrics], theta: PyTree) -> None:
        for metrics in history:
            self.loss = self.smoother(float(np.asarray(metrics.meta_loss)))
        if history:
            over = "Done already" if len(history) == self.total else "Going on"
            self.console.print(f"{over} after {len(history)} meta-steps.")
        compiling = "compiling: a minute or so"
        if self.live is not None:
            self._show(len(history), compiling)
            self.live.start()
        elif len(history) < self.total:
            self._print_line(len(history), compiling)

    def step(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        now = time.monotonic()
        self.loss = self.smoother(float(np.asarray(metrics.meta_loss)))
        if self.began is None:
            # The first step compiles: it would spoil the speed.
            self.began = step, now
        first, started = self.began
        speed = (step - first) / max(now - started, 1e-9)
        text = self._text(metrics, speed)
        if self.live is not None:
            self._show(step, text)
            return
        tenth = step == self.total or step % max(1, self.total // 10) == 0
        if tenth or now - self.printed > _SECONDS_BETWEEN_LINES:
            self.printed = now
            left = f"  {(self.total - step) / speed:.0f} s left" if speed > 0 else ""
            self._print_line(step, text + left)

    def end(self) -> None:
        if self.live is not None and self.live.is_started:
            self.live.stop()

    def _show(self, step: int, text: str) -> None:
        if self.live is not None:
            self.progress.update(self.task, completed=step)
            self.live.update(Group(self.progress, Text(text)))

    def _print_line(self, step: int, text: str) -> None:
        line = f"meta-step {step}/{self.total}  {text}"
        self.console.print(line, highlight=False, soft_wrap=True)

    def _text(self, metrics: Metrics, speed: float) -> str:
        silent = int(np.asarray(metrics.dead)) + int(np.asarray(metrics.dropped))
        skipped = int(np.asarray(metrics.skipped))
        parts = [
            f"meta-loss {self.loss:.4f} (now {float(np.asarray(metrics.meta_loss)):.4f})",
            f"gradient {float(np.asarray(metrics.gradient_norm)):.2g}",
            f"diverged {self._share(metrics):.0%}",
            f"dead {silent / self.pairs:.0%}",
            *([f"skipped {skipped}"] if skipped else []),
            f"{speed:.1f} steps/s",
        ]
        return "  ".join(parts)

    def _share(self, metrics: Metrics) -> float:
        return int(np.asarray(metrics.diverged)) / (self.pairs * self.members)


@contextmanager
def progress_logger(console: Console, total: int, pairs: int) -> Iterator[Watched]:
    """A logger that shows a run of `total` meta-steps of pairs, and does nothing else."""
    display = Display(console, total, pairs, 2)
    with watching([display]) as logger:
        display.begin([], None)
        yield logger
