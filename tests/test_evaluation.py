"""Evaluation: curves in closed form, sweeps by brute force, hand-made statistics."""

import pathlib
import sys
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar._cli import main
from equistar._cli._evaluate import Evaluate
from equistar._evaluation import _statistics as statistics, _tasks
from equistar._evaluation._statistics import quartiles
from equistar._evaluation._store import Entry, file_name
from equistar._evaluation._tables import speed_up, summary_rows, task_rows
from equistar._evaluation._training import HeldOutLoss, Programs, segments, train_many
from equistar._evaluation._tuning import as_batch, Sweep, tune


class Heard(eqs.AbstractProgress):
    """Remembers what it was told."""

    lines: list[str] = eqx.field(default_factory=list)

    def say(self, text):
        self.lines.append(text)

    def advance(self, label, done, total):
        pass

    def count(self, text):
        return sum(text in line for line in self.lines)


def _sgd(rate):
    return eqs.OptaxOptimizer(optax.sgd, learning_rate=rate)


@pytest.fixture(scope="module")
def setting():
    """A noisy quadratic, and programs that the tests of this module share."""
    task = eqs.tasks.Quadratic(jnp.array([2.0, 0.5]), noise=0.1)
    return task, Programs()


def _train(setting, optimizers, steps=20, segment=4, keys=None):
    task, programs = setting
    return train_many(
        task,
        optimizers,
        steps=steps,
        segment=segment,
        keys=jr.split(jr.key(0), 3) if keys is None else keys,
        held_out=HeldOutLoss(),
        programs=programs,
        progress=eqs.NoProgress(),
        label="",
    )


# 1. Training.


def test_gradient_descent_on_a_quadratic_follows_its_closed_form():
    # l = h p^2 / 2 and p <- (1 - eta h) p: the loss falls by (1 - eta h)^2 a step.
    task = eqs.tasks.Quadratic(jnp.array([2.0]))
    evaluation = eqs.evaluate(
        {"sgd": _sgd(0.3)},
        {"quadratic": task},
        steps=20,
        seeds=3,
        baselines=(),
        held_out="test",
        key=KEY,
    )
    (run,) = evaluation.results.runs
    factors = (1 - 0.3 * 2.0) ** (2 * np.arange(20))
    np.testing.assert_allclose(run.losses, run.losses[:, :1] * factors, rtol=1e-9)
    # Ten points two steps apart; the point after step t has the loss before step t + 1.
    assert run.held_out.shape == (3, 10)
    np.testing.assert_allclose(run.held_out[:, :9], run.losses[:, 2::2], rtol=1e-9)
    np.testing.assert_allclose(run.mean, run.losses[:, 0] * factors.mean(), rtol=1e-9)
    assert not run.diverged.any() and run.seconds_per_step > 0 and run.memory > 0
    assert np.all(np.isnan(evaluation.results.speed_up(run)))


def test_a_longer_training_begins_as_a_shorter_one_and_nothing_is_compiled_again(setting):
    short = _train(setting, as_batch(_sgd(0.3)))
    before = len(setting[1].compiled)
    long = _train(setting, as_batch(_sgd(0.3)), steps=40)
    np.testing.assert_array_equal(long.losses[..., :20], short.losses)
    other = _train(setting, as_batch(_sgd(0.1)))
    assert not np.array_equal(other.losses, short.losses)
    assert len(setting[1].compiled) == before


def test_training_is_a_loop_of_training_steps(setting):
    key = jr.key(3)
    curves = _train(setting, as_batch(_sgd(0.3)), keys=key[None])
    init_key, data_key = jr.split(key)
    state = eqs.train_init(setting[0], _sgd(0.3), key=init_key)
    step = eqx.filter_jit(eqs.train_step)
    for n in range(20):
        state, loss = step(setting[0], _sgd(0.3), state, key=jr.fold_in(data_key, n))
        np.testing.assert_allclose(curves.losses[0, 0, n], loss, rtol=1e-9)


def test_steps_are_cut_into_at_most_ten_equal_segments():
    assert [segments(n) for n in (1, 7, 20, 500, 101, 36)] == [1, 7, 10, 10, 1, 9]


# 2. Sweeps.


def _tune(
    setting,
    baseline,
    cache: eqs.AbstractStore = eqs.NoStore(),
    memory=None,
    steps=20,
    heard=None,
):
    return tune(
        baseline,
        setting[0],
        steps=steps,
        segment=4,
        keys=jr.split(jr.key(0), 3),
        key=jr.key(1),
        programs=setting[1],
        progress=heard or Heard(),
        label="quadratic",
        cache=cache,
        about={"task": "quadratic"},
        memory=memory,
    )


RATES = (1e-3, 0.03, 0.3, 3.0)


def test_the_chosen_adam_is_the_best_of_a_loop_over_the_grid(setting):
    sweep = _tune(setting, eqs.TunedAdam(rates=RATES))
    adam = lambda rate: as_batch(eqs.OptaxOptimizer(optax.adam, learning_rate=rate))
    means = np.stack([_train(setting, adam(r)).losses[0].mean(1) for r in RATES])
    np.testing.assert_allclose(sweep.means, means, rtol=1e-9)
    assert sweep.chosen == int(np.argmin(means.mean(1))) == 2
    assert abs(sweep.best()["learning_rate"] - 0.3) < 1e-12


def test_a_sweep_in_chunks_is_the_sweep_in_one(setting):
    whole = _tune(setting, eqs.TunedSGD(rates=RATES[:3]))
    # Room for no draw at all: one at a time.
    np.testing.assert_allclose(
        _tune(setting, eqs.TunedSGD(rates=RATES[:3]), memory=1).means,
        whole.means,
        rtol=1e-9,
    )


def test_a_draw_that_diverges_is_never_chosen(setting):
    sweep = _tune(setting, eqs.TunedSGD(rates=(1e200, 0.1, 1e200)))
    assert sweep.chosen == 1 and np.all(np.isinf(sweep.means[[0, 2]]))


def test_a_seed_on_which_all_draws_diverge_does_not_decide():
    means = np.array([[3.0, np.inf], [1.0, np.inf], [np.inf, np.inf], [0.1, np.inf]])
    sweep = Sweep({"learning_rate": np.arange(4.0)}, means)
    assert sweep.best() == {"learning_rate": 3.0}
    means[0, 1] = 9.0
    assert Sweep(sweep.settings, means).chosen == 0


def test_a_sweep_is_paid_once_for_its_settings(setting, tmp_path):
    cache, heard = eqs.FolderStore(tmp_path), Heard()
    first = _tune(setting, eqs.TunedSGD(rates=RATES[:3]), cache, heard=heard)
    again = _tune(setting, eqs.TunedSGD(rates=RATES[:3]), cache, heard=heard)
    assert heard.count("from before") == 1
    np.testing.assert_array_equal(first.means, again.means)
    assert first.best() == again.best()
    _tune(setting, eqs.TunedSGD(rates=RATES[:3]), cache, steps=8, heard=heard)
    _tune(setting, eqs.TunedSGD(rates=(0.02, 0.05, 0.1)), cache, heard=heard)
    assert heard.count("from before") == 1
    # A file that is cut short is made again.
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:50])
    _tune(setting, eqs.TunedSGD(rates=RATES[:3]), cache, heard=heard)
    assert heard.count("from before") == 1


def test_any_optimizer_of_optax_is_tuned_as_the_librarys_own_baselines_are(setting):
    makers = {
        "adam": (optax.adam, eqs.TunedAdam),
        "momentum": (lambda rate: optax.sgd(rate, momentum=0.9), eqs.TunedMomentum),
    }
    for name, (make, same) in makers.items():
        sweep = _tune(setting, eqs.TunedOptax(make, name, RATES[:3]))
        expected = _tune(setting, same(RATES[:3])).means
        np.testing.assert_allclose(sweep.means, expected, rtol=1e-12)


def test_a_baseline_of_optax_names_what_it_cannot_be_made_of(as_users_call):
    of: Any = eqs.TunedOptax
    with pytest.raises(ValueError, match="`make` must be a function"):
        of(optax.adam(0.1), "adam")
    with pytest.raises(ValueError, match="`name` must be a string"):
        of(optax.adam, 3)
    with pytest.raises(ValueError, match="`rates` must be a tuple of positive"):
        of(optax.adam, "adam", (0.0,))


BASELINES = (
    eqs.TunedMomentum(rates=(0.01, 0.1)),
    eqs.TunedAdafactor(rates=(0.1, 0.3)),
    eqs.TunedLion(rates=(0.01, 0.1)),
    eqs.TunedNAdamW(number=8),
    eqs.DAdaptation(),
    eqs.Prodigy(),
    eqs.ScheduleFree(),
)


@pytest.mark.parametrize("baseline", BASELINES, ids=lambda b: b.name)
def test_a_baseline_lowers_the_loss_and_says_its_budget(setting, baseline):
    draws = baseline.draws(key=jr.key(2))
    (number,) = {len(x) for x in draws.values()}
    assert str(number) in baseline.budget() or (number == 1 and "none" in baseline.budget())
    # Those that set their own learning rate take some 100 steps to find it.
    sweep = _tune(setting, baseline, steps=600)
    start = _train(setting, as_batch(_sgd(0.3))).losses[0, :, 0]
    assert np.min(sweep.means.mean(1)) < 0.7 * start.mean()


def test_the_draws_of_the_random_search_are_in_their_ranges():
    draws = eqs.TunedNAdamW(number=1000).draws(key=jr.key(0))
    for name, low, high in (("learning_rate", 1e-5, 1.0), ("b1", 0.5, 0.99)):
        values = np.asarray(draws[name])
        assert low <= values.min() < 1.1 * low and high / 1.1 < values.max() <= high
    # A third each: 333 +- 5 standard deviations of 15.
    constant = np.sum(np.asarray(draws["final"]) == 1)
    warm = np.sum(np.asarray(draws["warm_up"]) > 0.01)
    assert abs(constant - 333) < 75 and abs(warm - 333) < 75


# 3. Statistics, by hand.


def test_final_loss_and_divergence():
    t = np.arange(20.0)
    curves = np.stack([20 - t, 1 + t, np.where(t == 5, np.nan, 20 - t), np.ones(20)])
    # The last 10 % are two steps; the third is not finite at one step only.
    np.testing.assert_allclose(statistics.final_losses(curves), [1.5, 19.5, 1.5, 1])
    np.testing.assert_array_equal(statistics.diverged(curves), [False, True, True, False])
    assert np.isinf(statistics.mean_losses(curves)[2])


def test_the_first_step_that_reaches_a_loss():
    # 100 steps: windows of ten. 100 - t averages 100 - t + 4.5 over the ten ending at t,
    # counted from 0: as low as 50 first at t = 54.5, so in the 56th step.
    curve = 100 - np.arange(100.0)
    curves = np.stack([curve, curve, curve])
    first = statistics.first_reached(curves, np.array([50.0, 0.0, np.inf]))
    np.testing.assert_array_equal(first, [56, np.inf, np.inf])
    # One low minibatch is not enough.
    noisy = np.where(np.arange(100) == 3, 0.0, curve)[None]
    assert statistics.first_reached(noisy, np.array([50.0]))[0] > 50


def test_the_interquartile_mean_cuts_a_quarter_off_each_end():
    assert statistics.interquartile_mean(np.array([9.0, 1, 2, 3, 4, 5, 6, -7])) == 3.5
    assert statistics.interquartile_mean(np.array([1.0, 2, 6])) == 3
    assert statistics.interquartile_mean(np.array([1.0, 2, 3, np.inf])) == 2.5


def test_the_bootstrap_interval_is_a_point_for_constants_and_covers_the_mean():
    constant = statistics.bootstrap_interval(np.full((3, 4), 0.2), key=KEY)
    np.testing.assert_allclose(constant, 0.2)
    values = np.asarray(jr.normal(jr.key(5), (50, 4)))
    low, high = statistics.bootstrap_interval(values, key=KEY)
    middle = statistics.interquartile_mean(values.reshape(-1))
    # The standard error of the middle half's mean of 200 normals is about .08.
    assert low < middle < high and 0.15 < high - low < 0.6


def test_log_ratios_of_what_cannot_be_compared():
    found = statistics.log_ratios(
        np.array([2.0, np.inf, 1.0, -1.0]), np.array([1.0, 1.0, np.inf, 1.0])
    )
    np.testing.assert_allclose(found, [np.log(2), np.inf, np.nan, np.nan])


@pytest.mark.parametrize(
    "values, expected",
    [
        ([4.0, 1.0, 3.0, 2.0], (1.75, 2.5, 3.25)),
        ([1.0, 2.0, 3.0, np.inf], (1.75, 2.5, np.inf)),
        ([1.0, 2.0, np.inf, np.inf], (1.75, np.inf, np.inf)),
        ([np.inf, np.nan, 1.0, 2.0], (1.5, 2.0, np.inf)),
        ([-np.inf, 1.0, 1.0], (-np.inf, 1.0, 1.0)),
        ([np.nan], (np.nan,) * 3),
    ],
)
def test_quartiles_are_of_the_values_beside_them(values, expected):
    np.testing.assert_array_equal(quartiles(np.array(values)), expected)


def test_a_seed_that_diverges_is_counted_alike_in_both_tables():
    def run(name, means):
        losses = np.tile(np.array(means)[:, None], (1, 10))
        return eqs.Run("t", name, 10, losses, losses[:, -1:], 1e-6, 1, "none", {})

    runs = run("tuned Adam", [1.0] * 4), run("x", [0.6, 0.9, 1.05, np.nan])
    results = eqs.Results(runs, "tuned Adam")
    (first, *_), ratio = task_rows(results, "t", 10)[0], 4
    assert first == "x"
    middle = np.sqrt(0.9 * 1.05)
    assert task_rows(results, "t", 10)[0][ratio].startswith(f"{middle:.4g} ")
    assert summary_rows(results)[0][1:4:2] == ("x", "1 of 1")
    # Two seeds of four do not reach it: half of them take forever.
    assert speed_up(np.array([0.0, 0.0, 2.0, 3.0])) == "not reached"
    assert speed_up(np.array([0.0, 2.0, 3.0, 4.0])) == "2.5"


def test_speed_up_and_ratio_are_relative_to_tuned_adam():
    t = np.arange(100)
    run = lambda name, losses: eqs.Run(
        "task", name, 100, np.stack([losses, losses]), np.ones((2, 1)), 1.0, -1, "", {}
    )
    adam = run("tuned Adam", np.where(t < 80, 4.0, 1.0))
    # At 1.0 from step 31 on: the window of ten that ends at the 40th step is the first.
    fast = run("fast", np.where(t < 30, 4.0, 1.0))
    never = run("never", np.full(100, 8.0))
    results = eqs.Results((adam, fast, never), "tuned Adam")
    np.testing.assert_allclose(results.speed_up(fast), 100 / 40)
    np.testing.assert_allclose(results.speed_up(never), 0)
    np.testing.assert_allclose(results.log_ratio(fast), np.log(1.9 / 3.4))
    summary = results.summary("fast", 100)
    np.testing.assert_allclose(summary.log_ratio, np.log(1.9 / 3.4))
    assert (summary.tasks, summary.better, summary.diverged, summary.runs) == (1, 1, 0, 2)


def test_intervals_do_not_depend_on_the_order_of_tasks():
    noise = np.random.default_rng(0)
    run = lambda task, name: eqs.Run(
        task, name, 9, noise.uniform(1, 3, (4, 9)), np.ones((4, 1)), 1.0, -1, "", {}
    )
    runs = [run(f"task {i}", name) for i in range(5) for name in ("tuned Adam", "mine")]
    ours, theirs = (
        eqs.Results(tuple(some), "tuned Adam").summary("mine", 9)
        for some in (runs, reversed(runs))
    )
    assert ours == theirs


def test_no_two_pairs_of_names_share_a_file():
    names = "csv", "csv, small", "small, csv", "a,", ", a", "csv,", ",", ",,"
    keys = {_tasks._key(task, optimizer, 5) for task in names for optimizer in names}
    assert len(keys) == len(names) ** 2 and "csv, csv, 5" in keys


@pytest.mark.parametrize("rates", [(), 0.1, (0.1, np.nan), (-0.1, 0.1), ("0.1",)])
def test_rates_that_are_none_are_refused(as_users_call, rates):
    with pytest.raises(ValueError, match="`rates` must be a tuple of positive"):
        eqs.TunedAdam(rates=rates)


def test_draws_of_unlike_numbers_are_refused(setting):
    class Uneven(eqs.TunedNAdamW):
        def draws(self, *, key):
            return super().draws(key=key) | {"b1": jnp.ones(3)}

    with pytest.raises(ValueError, match="`draws` of Uneven must return a vector for each"):
        _tune(setting, Uneven(number=2))


# 4. Everything together.

KEY = jr.key(7)
ADAM = eqs.TunedAdam(rates=(0.03, 0.3))


def _quadratic():
    return eqs.tasks.Quadratic(jnp.array([2.0, 0.5]))


def _evaluate(optimizers, tasks, folder, heard, **settings):
    results = eqs.FolderStore(folder)
    settings = {"steps": 20, "seeds": 2, "baselines": (ADAM,), "key": KEY, **settings}
    return eqs.evaluate(optimizers, tasks, results=results, progress=heard, **settings)


def test_a_failure_loses_nothing_else_and_is_tried_again(tmp_path):
    broken = [True]

    def fragile():
        if broken[0]:
            raise RuntimeError("no such data\nand more")
        return _quadratic()

    tasks, heard = {"fragile": fragile, "quadratic": _quadratic}, Heard()
    first = _evaluate({"sgd": _sgd(0.3)}, tasks, tmp_path, heard)
    assert {(f.task, f.optimizer) for f in first.failures} == {
        ("fragile", "tuned Adam"),
        ("fragile", "sgd"),
    }
    assert first.failures[0].message == "RuntimeError: no such data"
    assert first.results.tasks == ("quadratic",) and len(first.results.runs) == 2
    assert len(eqs.load_evaluation(tmp_path).failures) == 2

    broken[0] = False
    second = _evaluate({"sgd": _sgd(0.3)}, tasks, tmp_path, heard)
    assert not second.failures and len(second.results.runs) == 4
    assert heard.count("there from before") == 2
    loaded = eqs.load_evaluation(tmp_path)
    assert not loaded.failures
    order = lambda e: sorted(e.results.runs, key=lambda run: (run.task, run.optimizer))
    for one, other in zip(order(loaded), order(second), strict=True):
        assert eqx.tree_equal(one, other)

    # Another optimizer under the old name is run again, and that is said.
    third = _evaluate({"sgd": _sgd(0.1)}, {"quadratic": _quadratic}, tmp_path, heard)
    assert heard.count("made with another optimizer") == 1
    assert third.results.find("quadratic", "sgd", 20) is not None
    with pytest.raises(ValueError, match=r"other settings \(seeds: 2 there, 3 here\)"):
        _evaluate({"sgd": _sgd(0.1)}, tasks, tmp_path, heard, seeds=3)


class _Broken(eqs.AbstractOptimizer):
    def init(self, params):
        raise ValueError("not today")

    def update(self, grads, state, params, **extra):
        return grads, state


def test_an_optimizer_that_fails_or_diverges_loses_nothing_else(tmp_path):
    optimizers = {"broken": _Broken(), "wild": _sgd(1e200)}
    tasks = {"quadratic": _quadratic}
    evaluation = _evaluate(optimizers, tasks, tmp_path / "results", Heard())
    assert [f.message for f in evaluation.failures] == ["ValueError: not today"]
    wild = evaluation.results.find("quadratic", "wild", 20)
    assert wild is not None and wild.diverged.all()
    summary = evaluation.results.summary("wild", 20)
    assert np.isposinf(summary.log_ratio) and summary.diverged == 2
    assert "∞" in str(evaluation)
    evaluation.report(tmp_path / "report.md")
    assert "not today" in (tmp_path / "report.md").read_text()


def test_a_result_that_cannot_be_read_is_named(tmp_path):
    _evaluate({"sgd": _sgd(0.3)}, {"quadratic": _quadratic}, tmp_path, Heard())
    (result,) = (p for p in tmp_path.glob("*.npz") if "sgd" in p.stem)
    # Files of others are none of its own.
    np.savez(tmp_path / "mine.npz", x=np.ones(2))
    assert not eqs.load_evaluation(tmp_path).notes
    result.write_bytes(result.read_bytes()[:100])
    (note,) = eqs.load_evaluation(tmp_path).notes
    assert note.startswith(f"{result} cannot be read and is left out")


def test_the_budget_of_tuning_is_that_of_the_last_evaluation(tmp_path):
    budgets = []
    # The rate that is too small is never chosen.
    for rates in ((0.1,), (0.1, 1e-12)):
        heard, adam = Heard(), eqs.TunedAdam(rates=rates)
        found = _evaluate({}, {"quadratic": _quadratic}, tmp_path, heard, baselines=(adam,))
        loaded = eqs.load_evaluation(tmp_path)
        budgets += [found.results.runs[0].tuning, loaded.results.runs[0].tuning]
    assert heard.count("there from before") == 1
    assert budgets[0] == budgets[1] != budgets[2] == budgets[3]


def test_an_optimizer_that_is_another_one_on_some_tasks_is_noted(tmp_path):
    tasks = {"quadratic": _quadratic, "again": _quadratic}
    _evaluate({"sgd": _sgd(0.3)}, tasks, tmp_path, Heard())
    assert not eqs.load_evaluation(tmp_path).notes
    _evaluate({"sgd": _sgd(0.1)}, {"again": _quadratic}, tmp_path, Heard())
    (note,) = eqs.load_evaluation(tmp_path).notes
    assert "'sgd' is not the same optimizer in all of its results" in note


def test_results_of_another_optimizer_are_not_those_of_one_that_fails(tmp_path):
    tasks = {"quadratic": _quadratic}
    _evaluate({"mine": _sgd(0.3)}, tasks, tmp_path, Heard())
    evaluation = _evaluate({"mine": _Broken()}, tasks, tmp_path, Heard())
    loaded = eqs.load_evaluation(tmp_path)
    assert eqx.tree_equal(loaded.failures, evaluation.failures)
    assert loaded.results.find("quadratic", "mine", 20) is None


def test_results_without_one_of_their_arrays_are_made_again(tmp_path):
    tasks, heard = {"quadratic": _quadratic}, Heard()
    first = _evaluate({"sgd": _sgd(0.3)}, tasks, tmp_path, heard)
    (path,) = tmp_path.glob("quadratic-sgd*.npz")
    with np.load(path) as archive:
        fewer = {name: archive[name] for name in archive.files if name != "array.held_out"}
    np.savez(path, **fewer)
    found = eqs.load_evaluation(tmp_path).results
    assert found.find("quadratic", "sgd", 20) is None
    again = _evaluate({"sgd": _sgd(0.3)}, tasks, tmp_path, heard)
    # The baseline's are whole.
    assert heard.count("there from before") == 1
    assert eqx.tree_equal(again.failures, first.failures)
    one, other = (e.results.find("quadratic", "sgd", 20) for e in (first, again))
    assert one is not None and other is not None
    np.testing.assert_array_equal(one.held_out, other.held_out)


def test_results_whose_settings_were_lost_are_made_again_under_others(tmp_path):
    tasks = {"quadratic": _quadratic}
    first = _evaluate({"sgd": _sgd(0.3)}, tasks, tmp_path, Heard())
    settings, heard = (tmp_path / "about.npz").read_bytes(), Heard()
    (tmp_path / "about.npz").write_bytes(settings[:99])
    for call in (
        lambda: _evaluate({"sgd": _sgd(0.3)}, tasks, tmp_path, heard, key=jr.key(99)),
        lambda: eqs.load_evaluation(tmp_path),
    ):
        with pytest.raises(ValueError, match=r"about\.npz is damaged.*remove them"):
            call()
    (tmp_path / "about.npz").unlink()
    other = _evaluate({"sgd": _sgd(0.3)}, tasks, tmp_path, heard, key=jr.key(99))
    assert heard.count("there from before") == 0
    one, another = (e.results.find("quadratic", "sgd", 20) for e in (first, other))
    assert one is not None and another is not None
    assert not np.array_equal(one.losses, another.losses)
    # Of other seeds, and not made again.
    (tmp_path / "about.npz").write_bytes(settings)
    found = eqs.load_evaluation(tmp_path).results
    assert found.find("quadratic", "sgd", 20) is None


def test_an_evaluation_of_which_nothing_was_finished_has_a_report(tmp_path):
    def missing():
        raise FileNotFoundError("no such data")

    evaluation = _evaluate({"sgd": _sgd(0.3)}, {"gone": missing}, tmp_path, Heard())
    evaluation.report(tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text()
    assert "Nothing was finished" in text and "no such data" in text


def test_a_failure_at_a_longer_horizon_is_found_again(tmp_path, monkeypatch):
    train = _tasks._train

    def fragile(plan, name, task, contestant, optimizers, steps):
        if steps > 20:
            raise MemoryError("too long")
        return train(plan, name, task, contestant, optimizers, steps)

    monkeypatch.setattr(_tasks, "_train", fragile)
    run = lambda: _evaluate(
        {"sgd": _sgd(0.3)},
        {"quadratic": _quadratic},
        tmp_path,
        Heard(),
        horizons=(1, 2),
        baselines=(),
    )
    evaluation, loaded = run(), eqs.load_evaluation(tmp_path)
    assert [f.message for f in evaluation.failures] == ["MemoryError: too long"]
    assert eqx.tree_equal(loaded.failures, evaluation.failures)
    assert loaded.results.horizons == (20,)
    monkeypatch.undo()
    assert not run().failures and not eqs.load_evaluation(tmp_path).failures


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    optimizers = {"sgd": _sgd(0.3), "slow | sgd": _sgd(0.03)}
    tasks = {"quadratic": _quadratic, "steep": eqs.tasks.Quadratic(jnp.array([3.0, 0.1]))}
    run = lambda horizons, budget: _evaluate(
        optimizers,
        tasks,
        folder / "results",
        Heard(),
        horizons=horizons,
        time_budget=budget,
    )
    return run((1, 2), 60.0), run((1, 2, 30), 0.0), folder


def test_horizons_are_run_while_a_step_is_cheap_enough(evaluated):
    evaluation, poor, _ = evaluated
    assert evaluation.results.horizons == (20, 40) and not evaluation.notes
    assert poor.results.horizons == (20,) and len(poor.notes) == 2
    assert "40 steps" in poor.notes[0]
    for task in ("quadratic", "steep"):
        short, long = (evaluation.results.find(task, "sgd", n) for n in (20, 40))
        assert short is not None and long is not None
        np.testing.assert_array_equal(short.losses, long.losses[:, :20])


def test_what_was_left_out_is_said_by_a_report_made_later(tmp_path):
    run = lambda budget: _evaluate(
        {"sgd": _sgd(0.3)},
        {"quadratic": _quadratic},
        tmp_path / "results",
        Heard(),
        baselines=(),
        horizons=(1, 2),
        time_budget=budget,
    )
    (note,) = run(0.0).notes
    later = eqs.load_evaluation(tmp_path)
    assert later.notes == (note,) and "40 steps" in note and "0 s were allowed" in note
    later.report(tmp_path / "report.md")
    assert note in (tmp_path / "report.md").read_text()
    # And no longer once it was run.
    assert not run(60.0).notes
    assert not eqs.load_evaluation(tmp_path).notes


def test_the_report_has_its_tables_figures_and_budgets(evaluated):
    evaluation, _, folder = evaluated
    evaluation.report(folder / "report.md")
    text = (folder / "report.md").read_text()
    assert "best of 2 learning rates, 0.03 to 0.3" in text
    assert f"jax {evaluation.about['versions']['jax']}" in text
    figures = [line.split("](")[1][:-1] for line in text.splitlines() if line[:2] == "!["]
    # One of all, and for each task and horizon the training and the held-out loss.
    assert len(figures) == 1 + 2 * 2 * 2 == len(set(figures))
    for figure in figures:
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
    # A bar in a name does not break a table.
    for block in text.split("\n\n"):
        rows = [x.replace("\\|", "") for x in block.splitlines() if x.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    reference = evaluation.results.summary("tuned Adam", 20)
    assert (reference.log_ratio, reference.low, reference.high) == (0, 0, 0)
    assert "tuned Adam" in str(evaluation)


def test_evaluations_are_compared_in_one_table(evaluated):
    evaluation, poor, folder = evaluated
    both = eqs.compare_evaluations({"a": evaluation, "b": eqs.load_evaluation(folder)})
    assert set(both.results.optimizers) == {
        "tuned Adam",
        *(f"{label}: {name}" for label in "ab" for name in ("sgd", "slow | sgd")),
    }
    assert both.results.horizons == (20, 40)
    one, other = (both.results.summary(f"{x}: sgd", 40).log_ratio for x in "ab")
    assert one == other
    longer = eqx.tree_at(lambda e: e.about["steps"], poor, 30)
    with pytest.raises(ValueError, match="steps: 20 in 'a', 30 in 'b'"):
        eqs.compare_evaluations({"a": evaluation, "b": longer})
    with pytest.raises(ValueError, match="no results"):
        eqs.load_evaluation(folder / "nowhere")


def test_tasks_of_one_name_that_differ_are_not_compared(evaluated, tmp_path):
    evaluation, _, folder = evaluated
    runs = evaluation.results.runs
    assert all(r.task_contents for r in runs)
    loaded = eqs.load_evaluation(folder).results.runs
    assert {r.task_contents for r in loaded} == {r.task_contents for r in runs}
    other = eqx.tree_at(lambda e: e.results.runs[0].task_contents, evaluation, "another")
    with pytest.raises(ValueError, match="'quadratic' is not the same task in all"):
        eqs.compare_evaluations({"a": evaluation, "b": other})
    newer = eqx.tree_at(lambda e: e.about["versions"]["equistar"], other, "99")
    both = eqs.compare_evaluations({"a": evaluation, "b": newer})
    assert "'quadratic' may not be the same" in both.notes[-1]
    assert both.notes[-1] in str(both)
    # In one folder, of which one optimizer was evaluated before the task was changed.
    steep = lambda: eqs.tasks.Quadratic(jnp.array([3.0, 0.1]))
    for name, make in (("sgd", _quadratic), ("slow", steep)):
        _evaluate({name: _sgd(0.1)}, {"quadratic": make}, tmp_path, Heard())
    (note,) = eqs.load_evaluation(tmp_path).notes
    assert note.startswith("'quadratic' is not the same task in all of its results")


def test_names_become_files_of_their_own():
    names = "a/b", "a b", "a-b", "../a", "ä"
    files = {file_name(name) for name in names}
    assert len(files) == len(names)
    assert all(len(pathlib.PurePath(f).parts) == 1 and f[0] != "." for f in files)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"steps": 0}, "at least 1"),
        ({"seeds": 0}, "at least 1"),
        ({"horizons": (0,)}, "at least 1"),
        ({"time_budget": float("nan")}, "at least"),
        ({"tasks": ["imagenet"]}, "digits_mlp"),
        ({"tasks": []}, "a task"),
        ({"tasks": ["digits_mlp", "digits_mlp"]}, "has one twice"),
        ({"baselines": (ADAM, ADAM)}, "names of their own"),
        ({"optimizers": {}, "baselines": ()}, "an optimizer"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(arguments, message):
    settings = {"optimizers": {"sgd": _sgd(0.1)}, "tasks": ["digits_mlp"], **arguments}
    with pytest.raises(ValueError, match=message):
        eqs.evaluate(**settings, key=KEY)


class NoSplit(eqs.tasks.AbstractTask):
    loss_bounds: tuple[float, float] = eqx.field(default=(0.0, 10.0), static=True)

    def init(self, *, key):
        return jnp.ones(2)

    def loss(self, params, *, key):  # pyright: ignore
        return jnp.sum(params**2)


QUADRATIC = eqs.tasks.Quadratic(jnp.ones(2))
# As a caller without a type checker has it.
UNTYPED: Any = eqs.evaluate


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"baselines": [eqs.TunedAdam]}, r"A baseline is a class .* `TunedAdam\(\)`"),
        (
            {"baselines": [optax.adam(1.0)]},
            "A baseline must be .*belongs into `optimizers`",
        ),
        ({"baselines": eqs.TunedAdam()}, r"`baselines` must be a list, say `\[TunedAdam"),
        ({"optimizers": [_sgd(0.1)]}, "`optimizers` must be a dictionary"),
        ({"optimizers": {"a": optax.adam}}, "The optimizer 'a' must be an optimizer, say"),
        ({"optimizers": {"a": eqs.STAR}}, r"'a' is a class .*`STAR\(key=\.\.\.\)`"),
        ({"tasks": "quadratic"}, "`tasks` must be a list of names.*got 'quadratic'"),
        ({"tasks": QUADRATIC}, "`tasks` must be a list of names"),
        ({"tasks": [QUADRATIC]}, "`tasks` must be a list of names, .* a dictionary"),
        ({"tasks": {"a": 3}}, "The task 'a' must be a task, .*or a function"),
        ({"tasks": {"a": eqs.tasks.Quadratic}}, "The task 'a' is a class"),
        ({"tasks": {"a": lambda seed: QUADRATIC}}, "a function without arguments"),
        ({"tasks": {"a": NoSplit()}}, "`loss` of NoSplit takes no `split`"),
        ({"optimizers": {1: _sgd(0.1)}}, "The name of an optimizer .* string.*; got 1"),
        ({"tasks": {1: QUADRATIC}}, "The name of an optimizer or a task must be a string"),
        ({"results": "folder"}, r"`results` must be a store, say `FolderStore\("),
        ({"sweeps": "folder"}, "`sweeps` must be a store"),
        ({"progress": eqs.NoProgress}, "`progress` is a class"),
        ({"held_out": "tset"}, "no split 'tset': did you mean 'test'"),
        ({"horizons": 4}, "`horizons` must be a list"),
        ({"time_budget": "1 h"}, "`time_budget` must be a number"),
        ({"key": 0}, r"`key` must be one PRNG key, say `jax\.random\.key\(0\)`; got 0"),
        ({"key": jr.split(KEY)}, "`key` must be one PRNG key"),
    ],
)
def test_arguments_of_another_kind_are_refused(as_users_call, arguments, message):
    settings = {"optimizers": {"sgd": _sgd(0.1)}, "tasks": ["digits_mlp"], "key": KEY}
    with pytest.raises(ValueError, match=message):
        UNTYPED(**{**settings, **arguments})


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda e, f: eqs.FolderStore(f / "file"), "file is a file: results are kept in a"),
        (lambda e, f: eqs.FolderStore(f / "file" / "in"), "file is a file: results are"),
        (lambda e, f: e.report(f), r"is a folder: name a file, say .*report\.md"),
        (lambda e, f: e.report(3), "`path` must be a path"),
        (lambda e, f: eqs.load_evaluation(3), "`path` must be a path"),  # pyright: ignore
        (lambda e, f: eqs.compare_evaluations([e]), "`evaluations` must be a dictionary"),  # pyright: ignore
        (
            lambda e, f: eqs.compare_evaluations({"a": f}),
            r"evaluation 'a' must be an Evaluation, say `load_evaluation\('folder'\)`",
        ),
        (lambda e, f: eqs.TunedMomentum(momentum="x"), "`momentum` must be one number"),  # pyright: ignore
    ],
)
def test_what_is_no_folder_file_or_evaluation_is_named(
    evaluated, tmp_path, as_users_call, call, message
):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=message):
        call(evaluated[0], tmp_path)


def test_a_transformation_of_optax_trains_as_the_optimizer_that_it_is():
    same = eqs.OptaxOptimizer(optax.sgd, learning_rate=eqs.Fixed(0.1))
    evaluation = eqs.evaluate(
        {"theirs": optax.sgd(0.1), "ours": same},
        {"quadratic": QUADRATIC},
        steps=4,
        seeds=2,
        baselines=(),
        key=KEY,
    )
    theirs, ours = evaluation.results.runs
    np.testing.assert_array_equal(theirs.losses, ours.losses)
    # p <- (1 - 0.1) p, of a loss that is a square.
    np.testing.assert_allclose(theirs.losses[:, 1], 0.81 * theirs.losses[:, 0], rtol=1e-12)


@pytest.mark.parametrize(
    "baseline",
    [eqs.TunedMomentum(rates=(0.1,)), eqs.TunedNAdamW(number=2), eqs.ScheduleFree()],
    ids=lambda b: b.name,
)
def test_baselines_train_parameters_of_fewer_bits_than_their_settings(baseline):
    task = eqs.tasks.Quadratic(jnp.ones(2, jnp.float32))
    evaluation = eqs.evaluate(
        {}, {"q": task}, steps=4, seeds=1, baselines=(baseline,), key=KEY
    )
    assert not evaluation.failures
    (run,) = evaluation.results.runs
    assert run.losses[0, -1] < run.losses[0, 0]


@pytest.mark.parametrize("default", [True, False])
def test_results_of_other_random_numbers_are_refused(tmp_path, default):
    tasks = {"quadratic": _quadratic}
    key = jr.key(7) if default else jr.key(7, impl="rbg")
    _evaluate({"sgd": _sgd(0.3)}, tasks, tmp_path, Heard(), baselines=(), key=key)
    other = jr.key(7, impl="unsafe_rbg")
    with pytest.raises(ValueError, match=r"other settings .*keys"):
        _evaluate({"sgd": _sgd(0.3)}, tasks, tmp_path, Heard(), baselines=(), key=other)


def test_names_are_printed_as_they_are():
    contestants = {"mine [a]": _sgd(0.1), "[/b]": _sgd(0.2)}
    evaluation = eqs.evaluate(
        contestants, {"q": QUADRATIC}, steps=2, seeds=1, baselines=(), key=KEY
    )
    assert "mine [a]" in str(evaluation) and "[/b]" in str(evaluation)


def test_what_failed_is_printed():
    evaluation = eqs.evaluate(
        {"sgd": _sgd(0.1)}, {"late": NoSplit}, steps=2, baselines=(), key=KEY
    )
    assert "Failed: sgd on late: ValueError: `loss` of NoSplit" in str(evaluation)


# 5. The command line.


def _command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["equistar", "evaluate", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
    return exit.value.code


def test_the_command_writes_a_report_and_goes_on_from_it(tmp_path, monkeypatch, capsys):
    weights = tmp_path / "mine.npz"
    eqs.save(weights, _sgd(0.1))
    settings = ("--tasks", "digits_logistic", "--steps", 10, "--seeds", 2)
    settings += ("--output", tmp_path / "out", "--cache", tmp_path / "cache")
    assert _command(monkeypatch, weights, *settings, "--baselines", "sgd") == 0
    out = capsys.readouterr().out
    assert "mine.npz" in out and "tuned SGD" in out and "report.md" in out
    assert (tmp_path / "out" / "report.md").is_file()
    assert len(list((tmp_path / "cache").iterdir())) == 1

    assert _command(monkeypatch, weights, *settings, "--baselines", "sgd") == 0
    assert capsys.readouterr().out.count("from before") == 3
    assert _command(monkeypatch, weights, *settings, "--seed", 1) == 1
    assert "other settings" in capsys.readouterr().err
    compare = ("--compare", tmp_path / "out", "--output", tmp_path / "other")
    assert _command(monkeypatch, weights, *settings[:4], "--seeds", 3, *compare) == 2
    assert "--seeds 2" in capsys.readouterr().err
    assert _command(monkeypatch, weights, *settings[:-1], weights) == 2
    assert "--cache" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    # Of other seeds: what was made is there, though not beside what it does not fit.
    options = *settings[:6], "--baselines", "sgd", "--seed", 1, *compare
    assert _command(monkeypatch, weights, *options, *settings[-2:]) == 2
    assert "cannot be compared (keys: " in (said := capsys.readouterr().err)
    assert "is of this evaluation alone" in said
    assert (tmp_path / "other" / "report.md").is_file()


def test_an_optimizer_is_added_to_the_report_of_an_earlier_evaluation(
    tmp_path, monkeypatch, capsys
):
    settings = ("--tasks", "quadratic", "--steps", 5, "--seeds", 2, "--baselines")
    folders = ("--output", tmp_path / "out", "--cache", tmp_path / "cache")
    for name, baselines in (("one.npz", ["adam"]), ("other.npz", [])):
        eqs.save(tmp_path / name, _sgd(0.1))
        command = (tmp_path / name, *settings, *baselines, *folders)
        assert _command(monkeypatch, *command) == 0
    out = capsys.readouterr().out.split("Optimizers: other.npz.")[1]
    report = (tmp_path / "out" / "report.md").read_text()
    for name in ("one.npz", "other.npz", "tuned Adam"):
        assert name in out and name in report
    # Adam is there to compare with.
    assert "no ratios" not in out


def test_how_far_beyond_its_length_is_chosen_by_the_suite():
    horizons = lambda **chosen: Evaluate(**chosen)._horizons()
    assert horizons() == (1, 10, 100) and horizons(suite="offline") == (1, 10)
    assert horizons(horizons=(1, 3)) == (1, 3) and horizons(tasks=("quadratic",)) == (1,)


def test_arrays_of_an_entry_may_have_any_name(tmp_path):
    store = eqs.FolderStore(tmp_path)
    names = "header", "file", "allow_pickle", "array.x"
    store.save("entry", Entry({"a": 1}, {name: np.ones(2) for name in names}))
    found: Any = store.load("entry")
    assert set(found.arrays) == set(names) and found.header["a"] == 1


def test_entries_without_a_prefix_to_their_arrays_are_read(tmp_path):
    header = np.frombuffer(b'{"name": "entry"}', np.uint8)
    np.savez(tmp_path / "entry.npz", header=header, losses=np.ones(2))
    found: Any = eqs.FolderStore(tmp_path).load("entry")
    np.testing.assert_array_equal(found.arrays["losses"], 1)


def test_an_overwritten_evaluation_leaves_weights_alone(tmp_path):
    weights = tmp_path / "mine.npz"
    eqs.save(weights, eqs.HyperparamController(key=jr.key(0)))
    store = eqs.FolderStore(tmp_path)
    store.save("an entry", Entry({"a": 1}, {"x": np.ones(2)}))
    assert store.load("mine") is None and len(list(store.entries())) == 1
    store.clear()
    assert [p.name for p in tmp_path.iterdir()] == ["mine.npz"]
