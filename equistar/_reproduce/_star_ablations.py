"""STAR with each of its parts removed or replaced."""

import dataclasses
from collections.abc import Callable, Mapping
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
from ._base import AbstractExperiment, Claim
from ._digits_runs import Contestant, DigitsRuns, far_beyond, meta_loss, stretches
from ._listed import listed_by_name


_DECAYS = {f"decay {decay:g}": decay for decay in (0.0, 0.1, 0.5, 1.0)}
_NOMINALS = {
    "nominal Adam": AdamDirection(),
    "nominal AggMo": AggMoDirection(),
    "nominal momentum": MomentumDirection(),
    "nominal gradient": GradientDirection(),
}
_NO_PRECONDITIONER, _NO_NOMINAL = "no preconditioner", "no nominal term"
_STAR = "decay 0.1"


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

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        return self.runs(CONTESTANTS, say)

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        end = {name: meta_loss(data, name) for name in CONTESTANTS}
        beyond = {name: far_beyond(data, name) for name in CONTESTANTS}
        return [
            _is_worse("nominal term", end, _NO_NOMINAL),
            _is_worse("preconditioner", end, _NO_PRECONDITIONER),
            *_weight_decay(end, beyond),
            Claim(
                "no other nominal direction gives a lower meta-loss than AdamAggMo",
                listed_by_name(end, (_STAR, *_NOMINALS)),
                end[_STAR] <= min(end[name] for name in _NOMINALS),
            ),
            _every_part_is_steadiest(beyond),
        ]

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        left, right = figure.subplots(1, 2)
        for i, name in enumerate(CONTESTANTS):
            style = {"color": f"C{i % 10}", "linestyle": "-" if i < 4 else "--"}
            meta, inner = (np.median(data[f"{name} {k}"], 0) for k in ("meta", "inner"))
            left.plot(*stretches(meta), label=name, **style)
            right.plot(*stretches(inner), **style)
        right.axvline(self.runs.length, color="grey", linewidth=0.8)
        left.set(xlabel="meta-step", title="meta-loss", yscale="log")
        right.set(xlabel="step", title="training loss", xscale="log", yscale="log")
        figure.legend(loc="outside right center", frameon=False, fontsize=8)


def _is_worse(part: str, end: dict[str, float], without: str) -> Claim:
    return Claim(
        f"without the {part} meta-training is worse",
        listed_by_name(end, (_STAR, without)),
        end[_STAR] < end[without],
    )


def _weight_decay(end: dict[str, float], beyond: dict[str, float]) -> list[Claim]:
    return [
        Claim(
            "weight decay of each size is better than none beyond the horizon",
            listed_by_name(beyond, _DECAYS),
            # Of three that do nothing the best would beat one, three times of four.
            max(beyond[k] for k, v in _DECAYS.items() if v) < beyond["decay 0"],
        ),
        Claim(
            "too much of it costs meta-loss",
            listed_by_name(end, _DECAYS),
            end["decay 1"] > end[_STAR],
        ),
    ]


def _every_part_is_steadiest(beyond: dict[str, float]) -> Claim:
    others = _NO_PRECONDITIONER, _NO_NOMINAL
    return Claim(
        "with every part training is the steadiest beyond the horizon",
        listed_by_name(beyond, (_STAR, *others)),
        beyond[_STAR] <= min(beyond[name] for name in others),
    )
