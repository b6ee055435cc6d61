"""The settings that every task of an evaluation shares."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray

from ._progress import AbstractProgress
from ._store import AbstractStore
from ._training import HeldOutLoss, Programs, segments


class Plan(eqx.Module):
    """How tasks are evaluated; see [`equistar.evaluate`][] for the meaning of each."""

    steps: int
    keys: Array
    draw_key: PRNGKeyArray
    horizons: tuple[int, ...]
    time_budget: float
    held_out: HeldOutLoss
    about: dict[str, Any]
    results: AbstractStore
    sweeps: AbstractStore
    progress: AbstractProgress
    programs: Programs

    @property
    def segment(self) -> int:
        """Updates between two held-out losses, at every horizon."""
        return self.steps // segments(self.steps)
