"""Figure 3 and the ablations: what they run, and what they conclude from it."""

import dataclasses

import numpy as np
import pytest

import equistar as eqs
from equistar._reproduce import EXPERIMENTS
from equistar._reproduce._digits_runs import (
    Contestant,
    DigitsRuns,
    far_beyond,
    meta_loss,
    stretches,
    within,
)
from equistar._reproduce._star_ablations import Ablations
from equistar._reproduce._star_fig3 import MetaTrainingCurves

from .helpers import measured


LENGTH = 20


class _Given(DigitsRuns):
    """Curves that are levels: of meta-loss, within the horizon, and beyond it."""

    levels: dict = dataclasses.field(default_factory=dict)

    def __call__(self, contestants, say):
        data = {}
        for name in contestants:
            meta, inside, beyond = self.levels.get(name, (1.0, 1.0, 1.0))
            data[f"{name} meta"] = np.full((2, 30), meta)
            curve = np.concatenate([np.full(LENGTH, inside), np.full(9 * LENGTH, beyond)])
            data[f"{name} inner"] = np.stack([curve, curve])
        return data


def _claims(experiment, levels):
    runs = _Given(steps=30, seeds=2, length=LENGTH, levels=levels)
    _, claims = measured(dataclasses.replace(experiment, runs=runs))
    return {claim.statement: claim.holds for claim in claims}


def test_a_world_as_the_paper_has_it_bears_figure_3_out():
    paper = {
        "STAR, decay 0.1": (0.1, 0.1, 0.1),
        "STAR, decay 0.5": (0.1, 0.1, 0.05),
        "Blackbox": (0.3, 0.3, 5.0),
        "HyperparamController": (0.4, 0.4, 0.2),
    }
    claims = _claims(MetaTrainingCurves(), paper)
    assert len(claims) == 6 and all(claims.values())
    # A STAR that comes apart beyond its horizon is told.
    apart = {**paper, "STAR, decay 0.1": (0.1, 0.1, 1.0)}
    wrong = [k for k, holds in _claims(MetaTrainingCurves(), apart).items() if not holds]
    assert any("still stable" in k for k in wrong)
    # One that is no better than its nominal term, too.
    same = {**paper, "STAR, decay 0.1": (0.5, 0.5, 0.1)}
    assert sum(not holds for holds in _claims(MetaTrainingCurves(), same).values()) == 3


def test_a_world_as_the_paper_has_it_bears_the_ablations_out():
    paper = {"decay 0.1": (0.1, 0.1, 0.1), "decay 0": (0.1, 0.1, 2.0)}
    claims = _claims(Ablations(), paper)
    assert len(claims) == 6 and all(claims.values())
    useless = {**paper, "no nominal term": (0.05, 0.1, 0.01)}
    wrong = [k for k, holds in _claims(Ablations(), useless).items() if not holds]
    assert len(wrong) == 2


def test_a_network_that_is_not_finite_loses_and_a_flat_one_does_not_come_apart():
    level = {"STAR, decay 0.1": (0.1, 0.1, 1e-5), "STAR, decay 0.5": (0.1, 0.1, 1e-5)}
    for name in ("Blackbox", "HyperparamController"):
        lost = _claims(MetaTrainingCurves(), level | {name: (0.3, np.nan, np.nan)})
        assert lost["within the horizon STAR trains better than both"]
    lost = _claims(MetaTrainingCurves(), level | {"STAR, decay 0.1": (0.1, np.nan, 1.0)})
    assert not lost["within the horizon STAR trains better than both"]
    flat = _claims(MetaTrainingCurves(), level | {"Blackbox": (1.4, 1.4, 1.4)})
    assert not flat["where the blackbox optimizer comes apart"]


def test_a_network_that_is_not_finite_is_infinitely_far():
    data = {"a inner": np.ones((3, 100)), "a meta": np.arange(40.0).reshape(2, 20)}
    data["a inner"][1:, -1] = np.nan
    assert far_beyond(data, "a") == np.inf and within(data, "a", 50) == 1
    # Of the last tenth: of 18, 19 and of 38, 39; the median of both.
    assert meta_loss(data, "a") == pytest.approx((18.5 + 38.5) / 2)
    at, mean = stretches(np.arange(10.0), 5)
    assert list(at) == [2, 4, 6, 8, 10] and list(mean) == [0.5, 2.5, 4.5, 6.5, 8.5]


def test_contestants_are_meta_trained_and_tried_beyond_the_horizon():
    runs = DigitsRuns(
        2, 2, length=LENGTH, pairs=1, window=10, beyond=2, networks=3, learning_rate=0.1
    )
    lines = []
    contestant = Contestant(lambda key: eqs.HyperparamController(key=key), 0.0)
    data = runs({"controller": contestant}, lines.append)
    assert data["controller meta"].shape == (2, 2)
    assert data["controller inner"].shape == (6, 2 * LENGTH)
    assert len(lines) == 2 and lines[1].startswith("controller, seed 1: meta-loss")
    # Another seed is another optimizer, on other noise.
    assert not np.array_equal(*data["controller meta"])
    assert np.all(np.isfinite(data["controller inner"]))


def test_both_have_their_names_and_a_size_to_run_overnight():
    for name in ("star-fig3", "star-ablations"):
        small = EXPERIMENTS[name]
        assert isinstance(small, MetaTrainingCurves | Ablations)
        full = small.full()
        assert full.runs.steps > small.runs.steps and full.runs.seeds >= 3
        assert full.runs.length == small.runs.length == 2000
