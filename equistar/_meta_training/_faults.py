"""A warning about a run that does not learn."""

from collections.abc import Sequence

import numpy as np

from .._estimators import AbstractEstimator
from .._unrolls import FinalLoss
from ._logger import Metrics


# Meta-steps over which shares are smoothed, and before which nothing is said.
_MEMORY = 20
_ADVICE = (
    "What helps: smaller steps (the nominal and the blackbox scale), a smaller sigma, a "
    "network whose directions begin at zero, shorter episodes."
)


class FaultWatch:
    """Says once, for each stretch of trouble, that too many particles are of no use.

    A stretch begins where the smoothed share of particles that carry no signal, or of
    their members that have diverged, passes `share`, and ends where both are below half of
    it. An estimator that tells by no `pairs` and no `particles` how many there are is not
    watched.
    """

    def __init__(self, estimator: AbstractEstimator, unrolls: int, share: float):
        """**Arguments:**

        - `estimator`: of the run.
        - `unrolls`: that it is used on in each meta-step.
        - `share`: of particles, or of members.
        """
        pairs = getattr(estimator, "pairs", None)
        number = getattr(estimator, "particles", None) if pairs is None else pairs
        self.kind = "particles" if pairs is None else "pairs"
        self.particles = unrolls * (number or 0)
        self.members = self.particles * (1 if pairs is None else 2)
        # Between the ends of episodes there is no final loss.
        final = isinstance(getattr(estimator, "objective", None), FinalLoss)
        self.count_dead = not (final and hasattr(estimator, "window"))
        self.share = share
        self.dead = 0.0
        self.diverged = 0.0
        self.seen = 0
        self.in_trouble = False

    def begin(self, history: Sequence[Metrics]) -> None:
        """Sees the meta-steps of a run that goes on, and says nothing of them."""
        for metrics in history:
            self.look(metrics)

    def look(self, metrics: Metrics) -> str | None:
        """What there is to say after a meta-step, if there is something."""
        if not self.particles:
            return None
        self.seen += 1
        # The mean at first, then exponential smoothing.
        weight = 1 / min(self.seen, _MEMORY)
        silent = int(np.asarray(metrics.dead)) + int(np.asarray(metrics.dropped))
        dead = silent / self.particles if self.count_dead else 0.0
        diverged = int(np.asarray(metrics.diverged)) / self.members
        self.dead += weight * (dead - self.dead)
        self.diverged += weight * (diverged - self.diverged)
        worst = max(self.dead, self.diverged)
        begins = not self.in_trouble and self.seen >= _MEMORY and worst > self.share
        ends = worst < self.share / 2
        self.in_trouble = begins or (self.in_trouble and not ends)
        return self._warning() if begins else None

    def _warning(self) -> str:
        parts = []
        if self.dead > self.share:
            parts.append(f"{self.dead:.0%} of the {self.kind} carry no signal")
        if self.diverged > self.share:
            parts.append(f"{self.diverged:.0%} of their members have diverged")
        return f"Meta-step {self.seen}: {' and '.join(parts)}. {_ADVICE}"
