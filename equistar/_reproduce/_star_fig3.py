"""STAR, its blackbox and its nominal term, meta-trained beside each other."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._optimizers import Blackbox, HyperparamController, STAR
from .._smoothing import last_tenth
from ._base import AbstractExperiment, Claim
from ._digits_runs import (
    band,
    Contestant,
    DigitsRuns,
    far_beyond,
    median_loss,
    meta_loss,
    within,
)
from ._listed import listed_by_name


CONTESTANTS = {
    "STAR, decay 0.1": Contestant(lambda key: STAR(key=key), 0.1),
    "STAR, decay 0.5": Contestant(lambda key: STAR(key=key), 0.5),
    "Blackbox": Contestant(lambda key: Blackbox(key=key), 0.0),
    "HyperparamController": Contestant(lambda key: HyperparamController(key=key), 0.0),
}
_STAR, _STEADY, _BLACKBOX, _NOMINAL = CONTESTANTS


class MetaTrainingCurves(AbstractExperiment):
    """STAR, figure 3: meta-training curves, and training beyond the horizon.

    On digits in place of Fashion-MNIST: the network is 64-32-32-10, with episodes of
    2,000 steps, windows of 50, and the paper's parts with all scales at 1e-3. Training
    goes on to ten times the episodes' length.
    """

    runs: DigitsRuns = DigitsRuns(steps=1000, seeds=5)

    def full(self) -> "MetaTrainingCurves":
        runs = dataclasses.replace(self.runs, steps=3000, seeds=5)
        return dataclasses.replace(self, runs=runs)

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        return self.runs(CONTESTANTS, say)

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        end = {name: meta_loss(data, name) for name in CONTESTANTS}
        inside = {name: within(data, name, self.runs.length) for name in CONTESTANTS}
        return [
            Claim(
                "STAR meta-trains to a lower meta-loss than the blackbox optimizer",
                listed_by_name(end, (_STAR, _BLACKBOX)),
                end[_STAR] < end[_BLACKBOX],
            ),
            Claim(
                "and to a lower one than the hyperparameter controller",
                listed_by_name(end, (_STAR, _NOMINAL)),
                end[_STAR] < end[_NOMINAL],
            ),
            Claim(
                "within the horizon STAR trains better than both",
                listed_by_name(inside, CONTESTANTS),
                inside[_STAR] < min(inside[_BLACKBOX], inside[_NOMINAL]),
            ),
            *self._beyond_the_horizon(data),
        ]

    def _beyond_the_horizon(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        beyond = {name: far_beyond(data, name) for name in CONTESTANTS}
        both = listed_by_name(beyond, (_STAR, _STEADY))
        worst = max(beyond[_STAR], beyond[_STEADY])
        end = lambda name: _at_the_end(data, name, self.runs.length)
        return [
            Claim(
                f"at {self.runs.beyond} times the horizon STAR is still stable: at most "
                ".05 above the loss at its end",
                both,
                all(beyond[name] < end(name) + 0.05 for name in (_STAR, _STEADY)),
            ),
            Claim(
                "where the blackbox optimizer comes apart",
                listed_by_name(beyond, (_BLACKBOX,)),
                beyond[_BLACKBOX] > max(2 * worst, end(_BLACKBOX) + 0.05),
            ),
            Claim(
                "stronger weight decay is steadier beyond the horizon",
                both,
                beyond[_STEADY] <= beyond[_STAR],
            ),
        ]

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        left, right = figure.subplots(1, 2)
        for name in CONTESTANTS:
            band(left, data[f"{name} meta"], name)
            band(right, data[f"{name} inner"], None)
        right.axvline(self.runs.length, color="grey", linewidth=0.8)
        left.set(xlabel="meta-step", title="meta-loss", yscale="log")
        right.set(xlabel="step", title="training loss", xscale="log", yscale="log")
        figure.legend(loc="outside lower center", ncols=4, frameon=False)


def _at_the_end(data: Mapping[str, np.ndarray], name: str, length: int) -> float:
    return median_loss(last_tenth(data[f"{name} inner"][:, :length]))
