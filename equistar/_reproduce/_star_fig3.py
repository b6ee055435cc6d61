"""STAR, its blackbox and its nominal term, meta-trained beside each other."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from .._optimizers import Blackbox, HyperparamController, STAR
from ._base import AbstractExperiment, Claim, Reproduction
from ._digits_runs import band, Contestant, DigitsRuns, far_beyond, meta_loss, within


CONTESTANTS = {
    "STAR, decay 0.1": Contestant(lambda key: STAR(key=key), 0.1),
    "STAR, decay 0.5": Contestant(lambda key: STAR(key=key), 0.5),
    "Blackbox": Contestant(lambda key: Blackbox(key=key), 0.0),
    "HyperparamController": Contestant(lambda key: HyperparamController(key=key), 0.0),
}


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

    def run(self, say: Callable[[str], None]) -> Reproduction:
        data = self.runs(CONTESTANTS, say)
        names, length = list(CONTESTANTS), self.runs.length
        star, steady, blackbox, nominal = names
        end = {name: meta_loss(data, name) for name in names}
        inside = {name: within(data, name, length) for name in names}
        beyond = {name: far_beyond(data, name) for name in names}
        text = lambda d: ", ".join(f"{k}: {v:.4f}" for k, v in d.items())
        claims = [
            Claim(
                "STAR meta-trains to a lower meta-loss than the blackbox optimizer",
                text({k: end[k] for k in (star, blackbox)}),
                end[star] < end[blackbox],
            ),
            Claim(
                "and to a lower one than the hyperparameter controller",
                text({k: end[k] for k in (star, nominal)}),
                end[star] < end[nominal],
            ),
            Claim(
                "within the horizon STAR trains better than both",
                text(inside),
                inside[star] < min(inside[blackbox], inside[nominal]),
            ),
            Claim(
                f"at {self.runs.beyond} times the horizon STAR is still stable: no worse "
                "than at its end",
                text({k: beyond[k] for k in (star, steady)}),
                max(beyond[star], beyond[steady]) < _at_the_end(data, star, length) + 0.05,
            ),
            Claim(
                "where the blackbox optimizer comes apart",
                text({blackbox: beyond[blackbox]}),
                beyond[blackbox] > 2 * max(beyond[star], beyond[steady]),
            ),
            Claim(
                "stronger weight decay is steadier beyond the horizon",
                text({k: beyond[k] for k in (star, steady)}),
                beyond[steady] <= beyond[star],
            ),
        ]

        def draw(figure: Any) -> None:
            left, right = figure.subplots(1, 2)
            for name in names:
                for axes, kind in ((left, "meta"), (right, "inner")):
                    band(axes, data[f"{name} {kind}"], name if axes is left else None)
            right.axvline(length, color="grey", linewidth=0.8)
            left.set(xlabel="meta-step", title="meta-loss", yscale="log")
            right.set(xlabel="step", title="training loss", xscale="log", yscale="log")
            figure.legend(loc="outside lower center", ncols=4, frameon=False)

        return Reproduction(data, draw, claims)


def _at_the_end(data: dict[str, np.ndarray], name: str, length: int) -> float:
    curves = data[f"{name} inner"][:, :length]
    return float(np.median(curves[:, -max(1, length // 10) :].mean(1)))
