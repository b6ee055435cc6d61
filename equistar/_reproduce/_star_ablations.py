"""STAR with each of its parts removed or replaced."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from .._components import (
    AdamDirection,
    AggMoDirection,
    EMAPreconditioner,
    GradientDirection,
    MomentumDirection,
    NoPreconditioner,
)
from .._optimizers import Blackbox, STAR
from ._base import AbstractExperiment, Claim, Reproduction
from ._digits_runs import Contestant, DigitsRuns, far_beyond, meta_loss, smoothed


_DECAYS = {f"decay {decay:g}": decay for decay in (0.0, 0.1, 0.5, 1.0)}
_NOMINALS = {
    "nominal Adam": AdamDirection(),
    "nominal AggMo": AggMoDirection(),
    "nominal momentum": MomentumDirection(),
    "nominal gradient": GradientDirection(),
}
_NO_PRECONDITIONER, _NO_NOMINAL = "no preconditioner", "no nominal term"


def _star(**parts: Any) -> Contestant:
    return Contestant(lambda key: STAR(key=key, **parts))


def _without_nominal(key: PRNGKeyArray) -> Blackbox:
    return Blackbox(preconditioner=EMAPreconditioner(), key=key)


CONTESTANTS = {
    **{
        name: Contestant(lambda key: STAR(key=key), decay)
        for name, decay in _DECAYS.items()
    },
    _NO_PRECONDITIONER: _star(preconditioner=NoPreconditioner()),
    _NO_NOMINAL: Contestant(_without_nominal),
    **{name: _star(direction=direction) for name, direction in _NOMINALS.items()},
}


class Ablations(AbstractExperiment):
    """STAR's ablations: its weight decay, preconditioner and nominal directions.

    On digits, as `star-fig3`; "decay 0.1" is STAR itself.
    """

    runs: DigitsRuns = DigitsRuns(steps=1000, seeds=3)

    def full(self) -> "Ablations":
        runs = dataclasses.replace(self.runs, steps=3000, seeds=3)
        return dataclasses.replace(self, runs=runs)

    def run(self, say: Callable[[str], None]) -> Reproduction:
        data = self.runs(CONTESTANTS, say)
        end = {name: meta_loss(data, name) for name in CONTESTANTS}
        beyond = {name: far_beyond(data, name) for name in CONTESTANTS}
        star = "decay 0.1"
        text = lambda d, names: ", ".join(f"{k}: {d[k]:.4f}" for k in names)
        others = [_NO_PRECONDITIONER, _NO_NOMINAL]
        claims = [
            Claim(
                "without the nominal term meta-training is worse",
                text(end, (star, _NO_NOMINAL)),
                end[star] < end[_NO_NOMINAL],
            ),
            Claim(
                "without the preconditioner meta-training is worse",
                text(end, (star, _NO_PRECONDITIONER)),
                end[star] < end[_NO_PRECONDITIONER],
            ),
            Claim(
                "some weight decay is better than none beyond the horizon",
                text(beyond, _DECAYS),
                min(beyond[k] for k, v in _DECAYS.items() if v) < beyond["decay 0"],
            ),
            Claim(
                "too much of it costs meta-loss",
                text(end, _DECAYS),
                end["decay 1"] > end[star],
            ),
            Claim(
                "no other nominal direction gives a lower meta-loss than AdamAggMo",
                text(end, (star, *_NOMINALS)),
                end[star] <= min(end[name] for name in _NOMINALS),
            ),
            Claim(
                "with every part training is the steadiest beyond the horizon",
                text(beyond, (star, *others)),
                beyond[star] <= min(beyond[name] for name in others),
            ),
        ]

        def draw(figure: Any) -> None:
            left, right = figure.subplots(1, 2)
            for i, name in enumerate(CONTESTANTS):
                for axes, kind in ((left, "meta"), (right, "inner")):
                    curve = np.median(data[f"{name} {kind}"], 0)
                    style = {"color": f"C{i % 10}", "linestyle": "-" if i < 4 else "--"}
                    label = name if axes is left else None
                    axes.plot(*smoothed(curve), label=label, **style)
            right.axvline(self.runs.length, color="grey", linewidth=0.8)
            left.set(xlabel="meta-step", title="meta-loss", yscale="log")
            right.set(xlabel="step", title="training loss", xscale="log", yscale="log")
            figure.legend(loc="outside right center", frameon=False, fontsize=8)

        return Reproduction(data, draw, claims)
