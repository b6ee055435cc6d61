"""Warnings about a run that does not learn."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import PyTree

from .._meta_training import Metrics
from ._watchers import AbstractWatcher


# Meta-steps over which shares are smoothed, and before which nothing is said.
_MEMORY = 20
ADVICE = (
    "What helps: smaller steps (--nominal-scale, --blackbox-scale), a smaller --sigma, "
    "--direction-init zero, a shorter --length."
)


class FaultWatch(AbstractWatcher):
    """Says once, for each stretch of trouble, that too many pairs are of no use.

    A stretch begins where the smoothed share of pairs that carry no signal, or of networks
    that have diverged, passes `share`, and ends where both are below half of it.
    """

    def __init__(
        self,
        pairs: int,
        members: int,
        share: float,
        count_dead: bool,
        say: Callable[[str], None],
    ):
        """**Arguments:**

        - `pairs`: of all tasks together.
        - `members`: networks of each.
        - `share`: of pairs, or of networks.
        - `count_dead`: whether each window should have a signal.
        - `say`: is given the warning.
        """
        self.networks = pairs * members
        self.pairs = pairs
        self.share = share
        self.count_dead = count_dead
        self.say = say
        self.dead = 0.0
        self.diverged = 0.0
        self.seen = 0
        self.in_trouble = False

    def begin(self, history: Sequence[Metrics], theta: PyTree) -> None:
        for metrics in history:
            self._look(metrics)

    def step(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        if self._look(metrics):
            self.say(self._warning(step))

    def end(self) -> None:
        pass

    def _look(self, metrics: Metrics) -> bool:
        """Whether a stretch of trouble begins here."""
        self.seen += 1
        # The mean at first, then exponential smoothing.
        weight = 1 / min(self.seen, _MEMORY)
        silent = int(np.asarray(metrics.dead)) + int(np.asarray(metrics.dropped))
        dead = silent / self.pairs if self.count_dead else 0.0
        diverged = int(np.asarray(metrics.diverged)) / self.networks
        self.dead += weight * (dead - self.dead)
        self.diverged += weight * (diverged - self.diverged)
        worst = max(self.dead, self.diverged)
        begins = not self.in_trouble and self.seen >= _MEMORY and worst > self.share
        ends = worst < self.share / 2
        self.in_trouble = begins or (self.in_trouble and not ends)
        return begins

    def _warning(self, step: int) -> str:
        parts = []
        if self.dead > self.share:
            parts.append(f"{self.dead:.0%} of the pairs carry no signal")
        if self.diverged > self.share:
            parts.append(f"{self.diverged:.0%} of the networks have diverged")
        return f"Meta-step {step}: {' and '.join(parts)}. {ADVICE}"
