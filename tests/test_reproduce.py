"""The papers' experiments run, and say what they found."""

import dataclasses
import errno
import importlib
import sys
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

import equistar as eqs
from equistar._cli import main
from equistar._reproduce import (
    _stepsize_horizon,
    _stepsize_label_noise,
    _stepsize_objectives_methods,
    EXPERIMENTS,
)
from equistar._reproduce._pes_influence_balancing import InfluenceExperiment
from equistar._reproduce._pes_regression import LearningRateSchedule
from equistar._reproduce._spectrum_digits import SpectrumOnDigits
from equistar._reproduce._star_cancellation import Cancellation
from equistar._reproduce._star_fig1 import EigenvaluesAfterInterventions
from equistar._reproduce._star_fig2a import MetaGradientVariance
from equistar._reproduce._star_fig2bc import MetaTrainingBesideNominal
from equistar._reproduce._stepsize_horizon import StepSizeHorizon
from equistar._reproduce._stepsize_label_noise import LabelNoise
from equistar._reproduce._stepsize_label_noise_tasks import Arm, draw_tasks
from equistar._reproduce._stepsize_problem import Descent
from equistar._reproduce._stepsize_validation import TrainByValidation
from equistar.analysis import StepSizeProblem
from equistar.tasks import _tfds, dataset_from_arrays, IMAGES, Split

from .helpers import measured


def test_truncation_goes_the_wrong_way_and_pes_does_not():
    _, claims = measured(InfluenceExperiment())
    assert len(claims) == 5
    assert [c.statement for c in claims if not c.holds] == []


def test_the_steady_state_of_influence_balancing_is_its_closed_form():
    import jax.numpy as jnp
    import jax.random as jr

    unroll, theta = eqs.InfluenceBalancing(23, 10), jnp.array([0.5])
    carry = unroll.init(theta, key=jr.key(0))
    for _ in range(300):
        carry, _ = unroll.step(theta, carry, key=jr.key(0))
    _, loss = unroll.step(theta, carry, key=jr.key(0))
    np.testing.assert_allclose(carry[0], unroll.steady * 0.5, rtol=1e-9)
    assert unroll.steady == -6
    np.testing.assert_allclose(loss, 8, rtol=1e-9)


def test_toy_problems_of_no_size_are_refused():
    with pytest.raises(ValueError, match="`positive` must be between 1 and `states`"):
        eqs.InfluenceBalancing(3, 4)
    with pytest.raises(ValueError, match=r"`length` must be .* at least 1"):
        eqs.RuggedRegression(0)


def test_short_horizons_learn_timid_schedules():
    _, claims = measured(LearningRateSchedule(steps=1500, grid=21))
    assert [c.statement for c in claims if not c.holds] == []


SMALL = {
    "star-fig1": EigenvaluesAfterInterventions(seeds=5),
    "star-fig2a": MetaGradientVariance(alphas=9, seeds=50, horizons=(1, 10, 1000)),
    "star-cancellation": Cancellation(draws=20, points=11),
}


@pytest.mark.parametrize("name", SMALL)
def test_what_the_star_paper_says_of_its_quadratic_is_found(name):
    assert type(SMALL[name]) is type(EXPERIMENTS[name])
    _, claims = measured(SMALL[name])
    assert len(claims) >= 3
    assert [c.statement for c in claims if not c.holds] == []


@pytest.mark.slow
def test_spectra_along_training_of_digits_are_found():
    data, claims = measured(SpectrumOnDigits(steps=(0, 10), number=1, batches=1))
    assert [c.statement for c in claims if not c.holds] == []
    assert data["STAR rho"].shape == (2,)


def test_train_by_train_overfits_and_train_by_validation_does_not():
    small = TrainByValidation(size=40, tasks=12, test_tasks=8, noises=(1.0, 3.0))
    _, claims = measured(small)
    # Statements 1 to 3; the fourth needs larger problems.
    assert [c.holds for c in claims[:3]] == [True] * 3


def test_the_best_step_size_depends_on_the_horizon_and_is_learned():
    small = StepSizeHorizon(problems=2, points=9, learned=(10,), steps=200)
    data, claims = measured(small)
    # The second statement needs more problems: on most the best step size only falls or
    # only rises.
    assert [claims[i].holds for i in (0, 2, 3)] == [True] * 3
    assert data["learned"].shape == (1, 2)


@pytest.mark.parametrize(
    "module, run",
    [
        (_stepsize_horizon, lambda problem: StepSizeHorizon()._learn(problem, 3)),
        (
            _stepsize_objectives_methods,
            lambda problem: next(
                iter(
                    _stepsize_objectives_methods.methods(
                        Descent(problem), 3, 2, 2, 0.1
                    ).values()
                )
            ).run(0.1, 5, jr.key(0)),
        ),
    ],
)
def test_an_experiment_ends_where_its_meta_training_is_interrupted(
    module, run, monkeypatch
):
    whole = module.meta_train

    def cut(*args, steps, **kwargs):
        result = whole(*args, steps=2, **kwargs)
        return dataclasses.replace(result, result=eqs.RESULTS.interrupted)

    monkeypatch.setattr(module, "meta_train", cut)
    with pytest.raises(KeyboardInterrupt):
        run(StepSizeProblem(jnp.array([1.0, 0.5], jnp.float32), jnp.ones(2, jnp.float32)))


def _images(seed):
    """Shaped as MNIST; the label is where the image is bright."""
    labels = np.arange(60) % 3
    images = np.random.default_rng(seed).integers(0, 100, (60, 28, 28, 1))
    images[np.arange(60), 9 * labels] += 150
    return dataset_from_arrays(images.astype(np.uint8), labels, scale=1 / 255, seed=seed)


ARMS = Arm(20, 0, 0.5), Arm(10, 10, 0.5), Arm(40, 0, 0.0)


def test_arms_of_the_label_noise_share_samples_and_noise_and_test_on_clean_ones():
    whole, halves, clean = draw_tasks(ARMS, _images(0), (4,), 8, seed=0)
    train, valid = Split.TRAIN, Split.INNER_VALID
    # Every sample is repeated up to the largest number, 40.
    for t in (whole, halves, clean):
        assert t.dataset[train].inputs.shape == (40, 28, 28, 1)
    labels = lambda t, split, n: np.asarray(t.dataset[split].targets[:n])
    np.testing.assert_array_equal(labels(whole, train, 40), labels(whole, valid, 40))
    np.testing.assert_array_equal(
        labels(whole, train, 20),
        np.concatenate([labels(halves, train, 10), labels(halves, valid, 10)]),
    )
    # Half are redrawn from 3 classes, so that a third of those stay: 1 in 3 is wrong.
    wrong = labels(whole, train, 20) != labels(clean, train, 20)
    assert 2 <= wrong.sum() <= 12
    bright = lambda x: np.argmax(np.asarray(x)[:, 0:27:9, :, 0].mean(2), axis=1)
    for t in (whole, halves, clean):
        test = t.dataset[Split.TEST]
        assert len(test.targets) == 20
        np.testing.assert_array_equal(bright(test.inputs), test.targets)
    with pytest.raises(ValueError, match="must divide the largest"):
        draw_tasks((Arm(30, 0, 0.0), Arm(40, 0, 0.0)), _images(0), (4,), 8, seed=0)


def test_label_noise_runs_on_images_and_says_what_it_found():
    tiny = {"length": 4, "window": 2, "pairs": 1, "meta_steps": 2, "test_steps": 4}
    small = LabelNoise(arms=ARMS, load=_images, hidden=(4,), seeds=2, **tiny)
    data, claims = measured(small)
    assert data["accuracy"].shape == (3, 2, 2, 5)
    assert np.all(np.isfinite(data["meta_loss"]))
    # After four steps nothing is fitted, and it says so.
    assert [claim.holds for claim in claims[:2]] == [False, False]
    assert "train-by-validation, 10 + 10" in claims[0].measured


def test_labels_are_fitted_beyond_what_the_true_ones_of_so_many_classes_would_give():
    # Of two classes, a label drawn anew is right every other time: .9 at a noise of .2.
    arms = Arm(100, 0, 0.2), Arm(100, 100, 0.2)
    accuracy = np.full((2, 5, 2, 2), 0.9)
    accuracy[0, :, 0] = 0.88
    data = {
        "training": np.array([100, 100]),
        "validation": np.array([0, 100]),
        "noise": np.array([0.2, 0.2]),
        "step": np.array([0, 800]),
        "horizon": np.array(800),
        "classes": np.array(2),
        "accuracy": accuracy,
    }
    claims = LabelNoise(arms).claims(data)
    (fits,) = [claim for claim in claims if "fits the noisy" in claim.statement]
    assert not fits.holds and "would have 90%" in fits.measured
    # Of arms without noise there are none, and nothing is said of them.
    assert not [claim for claim in claims if "without noise" in claim.statement]


def test_label_noise_on_mnist_draws_its_arms_from_the_prepared_data(monkeypatch):
    tfds: Any = importlib.import_module("tensorflow_datasets")

    def mock(name, seed):
        with tfds.testing.mock_data(num_examples=70):
            builder = tfds.builder(name)
            train, test = map(builder.as_data_source, ("train", "test"))
            return _tfds._dataset(IMAGES[name], train, test, seed)

    monkeypatch.setattr(_stepsize_label_noise, "tfds_images", mock)
    experiment: Any = EXPERIMENTS["stepsize-label-noise-mnist"]
    data = experiment.load(0)
    drawn = draw_tasks(ARMS, data, experiment.hidden, 8, seed=0)
    assert {t.dataset.in_shape for t in drawn} == {(28, 28, 1)}
    assert len(drawn[0].dataset[Split.TEST].targets) == 100


def test_mnist_that_is_not_prepared_is_said_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="equistar data prepare mnist"):
        EXPERIMENTS["stepsize-label-noise-mnist"].measure(lambda line: None)


def test_a_good_nominal_step_makes_meta_training_short():
    small = MetaTrainingBesideNominal(shares=(0.0, 0.3), steps=400, seeds=2)
    data, claims = measured(small)
    # 400 steps show that the good one is done and the bad one not, which is too few to
    # show 100 times as many.
    assert [claim.holds for claim in claims] == [True, False]
    assert "not in 400" in claims[1].measured
    assert "at least" in claims[1].measured
    # Every step is looked at here: those needed are those of the recorded losses.
    losses, optimum = data["meta_loss"], data["optimum"]
    near = losses < 1.1 * optimum
    first = np.where(near.any(-1), np.argmax(near, -1), np.inf)
    np.testing.assert_array_equal(data["steps_needed"], first)
    assert np.all(losses > optimum * (1 - 1e-6))
    assert np.median(losses[0, :, -1]) > 1.2 * optimum


def test_steps_to_near_optimal_do_not_depend_on_how_often_losses_are_recorded():
    (few, _), (many, claims) = (
        measured(MetaTrainingBesideNominal(shares=(0.0, 0.3), steps=n, seeds=2))
        for n in (400, 2400)
    )
    # Recorded at every step, and at every sixth.
    assert few["meta_step"][1] == 1 and many["meta_step"][1] == 6
    np.testing.assert_array_equal(few["steps_needed"][1], many["steps_needed"][1])
    assert [claim.holds for claim in claims] == [True, True]


def _run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["equistar", "reproduce", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
    return exit.value.code


def test_the_command_writes_figure_and_data_and_says_what_held(
    monkeypatch, tmp_path, capsys
):
    small = InfluenceExperiment(steps=50, particles=20)
    monkeypatch.setitem(EXPERIMENTS, "pes-influence-balancing", small)
    # After 50 of 3,000 steps nothing has converged: the claims fail, and it says so.
    assert _run(monkeypatch, "pes-influence-balancing", "--output", tmp_path) == 1
    assert " NO " in capsys.readouterr().out
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"pes-influence-balancing.png", "pes-influence-balancing.npz"}
    with np.load(tmp_path / "pes-influence-balancing.npz") as data:
        assert data["PES"].shape == (50,)


def test_what_was_found_is_said_even_where_no_file_has_room(monkeypatch, tmp_path, capsys):
    small = InfluenceExperiment(steps=50, particles=20)
    monkeypatch.setitem(EXPERIMENTS, "pes-influence-balancing", small)

    def full(path, contents):
        raise OSError(errno.EFBIG, "File too large", str(path))

    monkeypatch.setattr("equistar._cli._reproduce.write_npz_atomically", full)
    assert _run(monkeypatch, "pes-influence-balancing", "--output", tmp_path) == 1
    said = capsys.readouterr()
    assert " NO " in said.out and "File too large" in said.err


def test_claims_and_figure_are_made_again_from_the_saved_file_alone(monkeypatch, tmp_path):
    small = EigenvaluesAfterInterventions(size=5, seeds=2)
    monkeypatch.setitem(EXPERIMENTS, "star-fig1", small)
    _run(monkeypatch, "star-fig1", "--output", tmp_path)
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    with np.load(tmp_path / "star-fig1.npz") as saved:
        assert small.claims(saved) == small.claims(small.measure(lambda line: None))
        small.draw(figure, saved)
    figure.savefig(tmp_path / "again.png", dpi=150)
    written, again = (imread(tmp_path / f"{name}.png") for name in ("star-fig1", "again"))
    np.testing.assert_array_equal(written, again)


def test_the_command_lists_the_experiments_and_knows_no_others(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    assert _run(monkeypatch) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in EXPERIMENTS)
    assert _run(monkeypatch, "nothing") == 2
    assert "choose one of" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_has_a_full_size_of_its_own_kind(name):
    experiment = EXPERIMENTS[name]
    assert type(experiment.full()) is type(experiment)
    assert (type(experiment).__doc__ or "").strip()
