"""What looks on while a run is made: the display, the files, the warnings."""

import abc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, ExitStack
from typing import Any

from jaxtyping import PyTree

from .._devices import all_or_none
from .._meta_training import AbstractCheckpoints, AbstractLogger, Metrics, unstack_metrics


class AbstractWatcher(abc.ABC):
    """Is told when a run begins, of each of its meta-steps, and when it ends."""

    @abc.abstractmethod
    def begin(self, history: Sequence[Metrics], theta: PyTree) -> None:
        """The run begins, or goes on: no other run can use its folder from here on.

        **Arguments:**

        - `history`: of the meta-steps that have been made.
        - `theta`: the meta-parameters after them.
        """

    @abc.abstractmethod
    def step(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        """A meta-step was made, and kept if it was time to."""

    @abc.abstractmethod
    def end(self) -> None:
        """The process makes no more meta-steps; also if it never began."""


class Watched(AbstractLogger):
    """Tells watchers of meta-steps."""

    watchers: tuple[AbstractWatcher, ...]

    def __call__(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        for watcher in self.watchers:
            watcher.step(step, metrics, theta)


class WatchedCheckpoints(AbstractCheckpoints):
    """Checkpoints that tell watchers of the state that a run begins with."""

    checkpoints: AbstractCheckpoints
    watchers: tuple[AbstractWatcher, ...]

    def locked(self) -> Any:
        return self.checkpoints.locked()

    def for_run(self, parts: Mapping[str, Any]) -> "WatchedCheckpoints":
        return WatchedCheckpoints(self.checkpoints.for_run(parts), self.watchers)

    def restore(self, fresh: PyTree) -> tuple[PyTree, Metrics | None]:
        state, history = self.checkpoints.restore(fresh)
        made = [] if history is None else unstack_metrics(history)
        # Some are of the first process only.
        with all_or_none():
            for watcher in self.watchers:
                watcher.begin(made, state.theta)
        return state, history

    def save(
        self, step: int, state: PyTree, history: Sequence[Metrics], *, last: bool
    ) -> None:
        self.checkpoints.save(step, state, history, last=last)


@contextmanager
def watching(watchers: Sequence[AbstractWatcher]) -> Iterator[Watched]:
    """A logger that tells watchers, whose end it sees to."""
    # Each of them ends, whatever happens to the others.
    with ExitStack() as ends:
        for watcher in reversed(watchers):
            ends.callback(watcher.end)
        yield Watched(tuple(watchers))
