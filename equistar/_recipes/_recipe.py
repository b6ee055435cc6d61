"""Everything that makes a meta-training run what it is."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from ._estimator import EstimatorRecipe
from ._optimizer import OptimizerRecipe
from ._outer import OuterRecipe
from ._tasks import TasksRecipe


@dataclass(frozen=True)
class Recipe:
    """The run."""

    optimizer: OptimizerRecipe = field(default_factory=OptimizerRecipe)
    """The learned optimizer."""
    tasks: TasksRecipe = field(default_factory=TasksRecipe)
    """The tasks: one, or a mixture of many."""
    estimator: EstimatorRecipe = field(default_factory=EstimatorRecipe)
    """The estimator of the meta-gradient."""
    outer: OuterRecipe = field(default_factory=OuterRecipe)
    """The outer optimizer: AdamW on clipped meta-gradients."""
    steps: Annotated[int, tyro.conf.arg(aliases=("-n",))] = 1000
    """Meta-steps, each one window of every particle."""
    seed: int = 0
    """Of the initial weights, the noise and the data."""

    def check(self) -> None:
        """Raises a `ValueError` for settings that make no sense; builds nothing large."""
        if self.steps < 1:
            raise ValueError(f"--steps must be at least 1; got {self.steps}.")
        self.optimizer.check()
        self.tasks.check()
        self.estimator.build()
        if self.estimator.objective == "excess" and not self.tasks.references:
            raise ValueError(
                "The objective excess is what a loss has above its reference: give each "
                "task one by --references, say tuned Adam's mean loss."
            )
        self.outer.build(self.steps)

    def settings(self) -> dict[str, Any]:
        """All of it by the names of the flags."""
        flat: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            flat |= value if isinstance(value, dict) else {name: value}
        return flat

    def identity(self) -> dict[str, Any]:
        """What cannot change when a run goes on: all but its end, where that is free."""
        settings = self.settings()
        # A file may hold something else by the time that the run goes on.
        if self.optimizer.start_from:
            settings["contents_of_start_from"] = self.optimizer.start_contents()
        if self.outer.schedule == "constant":
            del settings["steps"]
        return settings
