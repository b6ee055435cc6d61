"""The outer optimizer, in settings."""

from dataclasses import dataclass
from typing import Literal

import optax

from .._meta_training import blackbox_mask, check_finite, default_outer


@dataclass(frozen=True)
class OuterRecipe:
    """The outer optimizer: AdamW on clipped meta-gradients."""

    learning_rate: float = 1e-3
    """Learning rate of AdamW, the outer optimizer."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Whether the learning rate stays, or falls as a cosine over --steps."""
    warm_up: int = 0
    """Meta-steps in which the learning rate first rises from zero."""
    final_rate: float = 0.05
    """Of cosine: the last learning rate as a share of the largest."""
    weight_decay: float = 0.1
    """Weight decay of AdamW, multiplied by the learning rate."""
    decay: Literal["blackbox", "everything"] = "blackbox"
    """What decays: the network and the blackbox term, as the paper says, or everything, as
    the released implementation has it."""
    clip: float = 1.0
    """Size that meta-gradients are clipped to."""
    clip_by: Literal["element", "norm"] = "element"
    """Whether each number is clipped by itself, or the global norm."""

    def build(self, steps: int) -> optax.GradientTransformation:
        """The outer optimizer of a run of `steps` meta-steps.

        **Raises:** `ValueError` for numbers that make no sense in so many meta-steps.
        """
        return default_outer(
            self._rate(steps),
            self.weight_decay,
            self.clip,
            clip_by=optax.clip_by_global_norm if self.clip_by == "norm" else optax.clip,
            mask=blackbox_mask if self.decay == "blackbox" else None,
        )

    def _check_schedule(self, steps: int) -> None:
        check_finite(self.learning_rate, "learning_rate")
        check_finite(self.final_rate, "final_rate")
        if not 0 <= self.warm_up:
            raise ValueError(f"`warm_up` must be at least 0; got {self.warm_up}.")
        if self.schedule == "cosine" and not self.warm_up < steps:
            raise ValueError(
                f"`warm_up` of {self.warm_up} leaves nothing of {steps} meta-steps: use a "
                "smaller one, say 0 (`--warm-up 0`)."
            )

    def _rate(self, steps: int) -> optax.Schedule | float:
        self._check_schedule(steps)
        rate, rising = self.learning_rate, self.warm_up
        if self.schedule == "cosine":
            after = optax.cosine_decay_schedule(rate, steps - rising, self.final_rate)
        elif rising:
            after = optax.constant_schedule(rate)
        else:
            return rate
        if not rising:
            return after
        rise = optax.linear_schedule(0.0, rate, rising)
        return optax.join_schedules([rise, after], [rising])
