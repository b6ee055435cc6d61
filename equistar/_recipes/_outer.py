"""The outer optimizer, in settings."""

import math
from dataclasses import dataclass
from typing import Literal

import optax

from .._outer import blackbox_mask


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

    def check(self, steps: int) -> None:
        """Raises a `ValueError` for numbers that make no sense in so many meta-steps."""
        for name in ("learning_rate", "final_rate", "weight_decay", "clip"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"`{name}` must be a finite number of at least 0; got {value}."
                )
        if self.clip == 0:
            raise ValueError("`clip` must be above 0: at 0 nothing is trained.")
        if not 0 <= self.warm_up:
            raise ValueError(f"`warm_up` must be at least 0; got {self.warm_up}.")
        if self.schedule == "cosine" and not self.warm_up < steps:
            raise ValueError(
                f"`warm_up` of {self.warm_up} leaves nothing of {steps} meta-steps: use a "
                "smaller one, say 0 (`--warm-up 0`)."
            )

    def build(self, steps: int) -> optax.GradientTransformation:
        """The outer optimizer of a run of `steps` meta-steps."""
        self.check(steps)
        by_norm = self.clip_by == "norm"
        clip = optax.clip_by_global_norm(self.clip) if by_norm else optax.clip(self.clip)
        mask = blackbox_mask if self.decay == "blackbox" else None
        adamw = optax.adamw(self._rate(steps), weight_decay=self.weight_decay, mask=mask)
        return optax.chain(clip, adamw)

    def _rate(self, steps: int) -> optax.Schedule | float:
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
