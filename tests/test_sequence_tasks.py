"""Text, models of sequences, tables, synthetic problems, families and suites."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest

from equistar import tasks


ARCHITECTURES = {
    "lstm": tasks.Recurrent(tasks.LSTM(), 4, 3),
    "gru": tasks.Recurrent(tasks.GRU(), 4, 3),
    "rnn": tasks.Recurrent(tasks.VanillaRNN(), 4, 3),
    "transformer": tasks.Transformer(2, 4, 2),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scores_do_not_see_later_tokens(name):
    model = ARCHITECTURES[name].build((6,), 5, key=jr.key(0))
    tokens = jnp.array([0, 1, 2, 3, 4, 0])
    here = model(tokens)
    there = model(tokens.at[3].set(1))
    assert here.shape == (6, 5)
    np.testing.assert_allclose(there[:3], here[:3], rtol=1e-12)
    # What comes at and after the changed token does see it.
    assert np.all(np.abs(there[3:] - here[3:]).max(1) > 1e-6)


def _count(architecture, length, vocabulary):
    build = lambda: architecture.build((length,), vocabulary, key=jr.key(0))
    arrays = eqx.filter_eval_shape(lambda: eqx.filter(build(), eqx.is_inexact_array))
    return sum(x.size for x in jtu.tree_leaves(arrays))


def test_the_papers_transformer_has_as_many_parameters_as_it_says():
    attention = 4 * 256**2
    mlp = 2 * 4 * 256**2 + 4 * 256 + 256
    norm = 2 * 256
    embeddings = (32_000 + 128) * 256
    readout = 256 * 32_000 + 32_000
    total = 5 * (attention + mlp + 2 * norm) + norm + embeddings + readout
    assert _count(tasks.Transformer(5, 256, 8), 128, 32_000) == total
    assert total // 100_000 == 203


def test_the_papers_lstm_has_four_gates_and_its_embedding():
    gates = 4 * (256 * (128 + 256) + 256)
    total = 32_000 * 128 + gates + 256 * 32_000 + 32_000
    assert _count(tasks.Recurrent(tasks.LSTM(), 256, 128), 32, 32_000) == total


def test_windows_are_pieces_of_their_own_split():
    text = tasks.text_from_tokens(np.arange(100))
    assert text.vocabulary == 100
    first = {"train": 0, "inner_valid": 70, "outer_valid": 80, "test": 90}
    for split in tasks.Split:
        assert len(text[split]) == (70 if split is tasks.Split.TRAIN else 10)
        windows = np.asarray(text.windows(split, 5, 200, key=jr.key(0)))
        np.testing.assert_array_equal(np.diff(windows), 1)
        # All places are drawn, the first and the last among them.
        low = first[split.value]
        assert windows.min() == low and windows.max() == low + len(text[split]) - 1


def test_a_language_model_of_one_token_after_each_is_scored_on_the_next():
    text = tasks.text_from_tokens(np.arange(60) % 3)
    task = tasks.LanguageModelling(text, tasks.Transformer(1, 2, 1), 4, 2)
    params = jtu.tree_map(jnp.zeros_like, task.init(key=jr.key(0)))
    assert task.loss_bounds == (0.0, 1.5 * np.log(3))
    np.testing.assert_allclose(task.loss(params, key=jr.key(1)), np.log(3), rtol=1e-12)
    # Scores that follow the pattern are right everywhere.
    windows = text.windows(tasks.Split.TEST, 5, 2, key=jr.key(0))
    np.testing.assert_array_equal((windows[:, :-1] + 1) % 3, windows[:, 1:])


def test_text_of_the_standard_library_is_python_in_ascii():
    text = tasks.standard_library_text()
    again = tasks.standard_library_text()
    assert text.vocabulary == 128 and eqx.tree_equal(text, again)
    tokens = np.concatenate([np.asarray(text[s]) for s in tasks.Split])
    assert tokens.dtype == np.uint8 and 8e5 < len(tokens) < 2e6
    assert b"def " in tokens[:20_000].tobytes()
    # Each split is of real text: letters that follow a skewed distribution.
    for split in tasks.Split:
        share = np.bincount(np.asarray(text[split]), minlength=128) / len(text[split])
        entropy = -np.sum(share[share > 0] * np.log(share[share > 0]))
        assert 2.5 < entropy < 3.7


def test_bytes_stay_bytes_and_larger_vocabularies_are_int32():
    assert tasks.text_from_tokens(np.arange(30)).splits["train"].dtype == jnp.uint8
    large = tasks.text_from_tokens(np.arange(30), vocabulary=32_000)
    assert large.splits["train"].dtype == jnp.int32 and large.vocabulary == 32_000


def _language(length=4, **kwargs):
    return tasks.LanguageModelling(
        tasks.text_from_tokens(np.arange(40)), tasks.Transformer(1, 2, 1), length, **kwargs
    )


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: tasks.text_from_tokens(np.arange(10)), "at least 20"),
        (lambda: tasks.text_from_tokens(np.ones((30, 2), int)), "in a row"),
        (lambda: tasks.text_from_tokens(np.ones(30)), "integers"),
        (lambda: tasks.text_from_tokens(-np.ones(30, int)), "integers from 0 up; got -1"),
        (lambda: tasks.text_from_tokens(np.arange(30), 20), "below `vocabulary`, 20"),
        (lambda: _language(4), "do not fit into a split of 4"),
        (lambda: _language(0), "at least 1"),
        (lambda: _language(batch_size=0), "at least 1"),
        (lambda: tasks.Transformer(2, 6, 4), "multiple of `heads`"),
        (lambda: tasks.Transformer(0, 4, 2), "at least 1"),
        (lambda: tasks.Recurrent(width=0), "at least 1"),
        (lambda: tasks.FourierMLP(octaves=0), "at least 1"),
        (lambda: tasks.Rosenbrock(1), "at least 2"),
        (lambda: tasks.LinearTeacher(jnp.ones(2), batch_size=0, key=jr.key(0)), "at least"),
        (lambda: tasks.PerceptronFamily(tasks.wine(), widths=(9, 8)), "least <= largest"),
        (lambda: tasks.PerceptronFamily(tasks.wine(), depths=(-1, 2)), "0 <= least"),
        (lambda: tasks.PerceptronFamily(tasks.wine(), shares=(0.0, 1.0)), "0 < least"),
        (lambda: tasks.PerceptronFamily(tasks.wine(), batch_sizes=(0, 1)), "1 <= least"),
        (lambda: tasks.ConvNetFamily(tasks.digits(), depths=(0, 2)), "1 <= least"),
        (lambda: tasks.ConvNetFamily(tasks.digits(), channels=(0, 2)), "1 <= least"),
        (lambda: tasks.QuadraticFamily(sizes=(1, 2)), "2 <= least"),
        (lambda: tasks.QuadraticFamily(condition=0.5), "at least 1"),
        (lambda: tasks.suite("imagenet"), "offline.*smoke"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make, rows, columns, kinds",
    [(tasks.breast_cancer, 569, 30, 2), (tasks.wine, 178, 13, 3)],
)
def test_tables_are_standardised(make, rows, columns, kinds):
    data = make()
    inputs = np.concatenate([np.asarray(data[s].inputs) for s in tasks.Split])
    assert inputs.shape == (rows, columns) and data.classes == kinds
    # The tables are stored in float32.
    np.testing.assert_allclose(inputs.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(inputs.std(0), 1, atol=1e-5)


@pytest.mark.parametrize(
    "make, rows, columns, outputs",
    [(tasks.diabetes, 442, 10, 1), (tasks.photograph, 4096, 2, 3)],
)
def test_targets_are_standardised(make, rows, columns, outputs):
    data = make()
    inputs = np.concatenate([np.asarray(data[s].inputs) for s in tasks.Split])
    targets = np.concatenate([np.asarray(data[s].targets) for s in tasks.Split])
    assert inputs.shape == (rows, columns) and targets.shape == (rows, outputs)
    np.testing.assert_allclose(targets.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(targets.std(0), 1, atol=1e-5)


def test_the_photograph_is_upright_with_its_bright_sky_above():
    data = tasks.photograph()
    inputs = np.concatenate([np.asarray(data[s].inputs) for s in tasks.Split])
    targets = np.concatenate([np.asarray(data[s].targets) for s in tasks.Split])
    np.testing.assert_allclose(np.abs(inputs).max(0), 63 / 64)
    blue = lambda rows: targets[rows, 2].mean()
    # y grows downwards.
    assert blue(inputs[:, 1] < -0.7) > 0.5 > 0 > blue(inputs[:, 1] > 0.7)


def test_fourier_features_are_waves_of_the_coordinates():
    model: Any = tasks.FourierMLP((), octaves=2).build((1,), 7, key=jr.key(0))
    (layer,) = model.mlp.layers
    x = 0.3
    waves = [f(np.pi * k * x) for k in (1, 2) for f in (np.sin, np.cos)]
    expected = layer.weight @ np.array([x, *waves]) + layer.bias
    np.testing.assert_allclose(model(jnp.array([x])), expected, rtol=1e-9)


def test_the_teacher_is_the_solution_and_the_curvature_the_hessian():
    curvature, noise = jnp.array([1.0, 0.25]), 0.5
    task = tasks.LinearTeacher(curvature, noise, batch_size=50_000, key=jr.key(0))
    np.testing.assert_allclose(jnp.sum(task.teacher**2), 1, rtol=1e-12)
    # The same key for the start is not a start at the solution.
    assert np.abs(task.init(key=jr.key(0)) - task.teacher).max() > 0.01
    at = lambda w: float(task.loss(w, key=jr.key(1)))
    np.testing.assert_allclose(at(task.teacher), noise**2 / 2, rtol=0.03)
    move = jnp.array([0.0, 2.0])
    expected = noise**2 / 2 + 0.5 * 0.25 * 4
    np.testing.assert_allclose(at(task.teacher + move), expected, rtol=0.03)


@pytest.mark.parametrize("size", [2, 5])
def test_rosenbrock_is_zero_at_ones_only_and_starts_at_its_bound(size):
    task = tasks.Rosenbrock(size)
    key = jr.key(0)
    assert task.loss(jnp.ones(size), key=key) == 0
    start = jnp.where(jnp.arange(size) % 2 == 0, -1.2, 1.0)
    bound = 1.5 * task.loss(start, key=key)
    np.testing.assert_allclose(task.loss_bounds[1], bound, rtol=1e-12)
    assert np.abs(task.init(key=key) - start).max() <= 0.1


def test_sampled_perceptrons_cover_their_family():
    family = tasks.PerceptronFamily(tasks.wine(), widths=(2, 32), depths=(0, 3))
    drawn: list[Any] = [family.sample(key=k).architecture for k in jr.split(jr.key(0), 60)]
    assert {len(a.hidden) for a in drawn} == {0, 1, 2, 3}
    assert {a.activation for a in drawn} == set(family.activations)
    assert {type(a.norm) for a in drawn} == {type(n) for n in family.norms}
    widths = np.array([w for a in drawn for w in a.hidden])
    assert widths.min() >= 2 and widths.max() <= 32
    # Log-uniform: as many below the geometric mean of the bounds as above it.
    assert 0.3 < np.mean(widths < 8) < 0.7


def test_a_sampled_task_is_a_task_and_the_same_for_the_same_key():
    family = tasks.PerceptronFamily(tasks.wine(), widths=(2, 8), batch_sizes=(4, 4))
    task = family.sample(key=jr.key(3))
    assert task.architecture == family.sample(key=jr.key(3)).architecture
    loss = task.loss(task.init(key=jr.key(0)), key=jr.key(1))
    assert np.isfinite(loss)


@pytest.mark.parametrize("make", [tasks.PerceptronFamily, tasks.ConvNetFamily])
def test_sampled_tasks_have_more_or_less_of_the_data(make):
    digits = tasks.digits()
    family = make(digits, batch_sizes=(4, 64), shares=(0.1, 1.0))
    drawn: list[Any] = [family.sample(key=k) for k in jr.split(jr.key(0), 60)]
    whole = np.asarray(digits[tasks.Split.TRAIN].inputs).reshape(-1, 64)
    sizes, known = [], {row.tobytes() for row in whole}
    for task in drawn:
        train = task.dataset[tasks.Split.TRAIN]
        sizes.append(len(train.targets))
        # Different examples of the whole, and the same ones held out.
        rows = {r.tobytes() for r in np.asarray(train.inputs).reshape(-1, 64)}
        assert rows <= known and len(rows) > 0.97 * sizes[-1]
        test = tasks.Split.TEST
        assert eqx.tree_equal(task.dataset[test], digits[test])
    batches = np.array([task.batch_size for task in drawn])
    assert 126 <= min(sizes) < 250 and 700 < max(sizes) <= 1258
    assert 4 <= batches.min() < 8 and 32 < batches.max() <= 64
    # Log-uniform: as many below the geometric mean of the bounds as above it.
    assert 0.3 < np.mean(batches < 16) < 0.7
    assert 0.3 < np.mean(np.array(sizes) < 398) < 0.7


def test_sampled_convnets_cover_their_family():
    family = tasks.ConvNetFamily(tasks.digits(), channels=(2, 8), depths=(1, 2))
    drawn: list[Any] = [family.sample(key=k).architecture for k in jr.split(jr.key(0), 40)]
    assert {len(a.channels) for a in drawn} == {1, 2}
    assert {c for a in drawn for c in a.channels} == set(range(2, 9))
    assert {a.activation for a in drawn} == set(family.activations)
    assert {type(a.norm) for a in drawn} == {type(n) for n in family.norms}
    task = family.sample(key=jr.key(0))
    params = jax.eval_shape(lambda: task.init(key=jr.key(0)))
    assert jax.eval_shape(lambda p: task.loss(p, key=jr.key(1)), params).shape == ()


def test_sampled_quadratics_have_their_extreme_eigenvalues():
    family = tasks.QuadraticFamily(sizes=(2, 6), condition=1e3)
    drawn = [family.sample(key=k) for k in jr.split(jr.key(0), 30)]
    sizes = [len(q.curvature) for q in drawn]
    assert set(sizes) == {2, 3, 4, 5, 6}
    for quadratic in drawn:
        assert np.max(quadratic.curvature) == 1
        assert np.min(quadratic.curvature) >= 1e-3 * (1 - 1e-9)
        assert 0 <= quadratic.noise <= family.noise


def test_suites_name_tasks_that_exist():
    assert len(tasks.SUITES["smoke"]) == 3
    assert set(tasks.HORIZONS) == set(tasks.SUITES)
    assert len(tasks.SUITES["offline"]) >= 16
    for name in tasks.SUITES:
        assert len(set(tasks.suite(name))) == len(tasks.suite(name))
        assert set(tasks.suite(name)) <= set(tasks.NAMED)


@pytest.mark.parametrize("name", tasks.SUITES["offline"])
def test_offline_tasks_are_built_and_trace(name):
    task = tasks.named(name)
    params = jax.eval_shape(lambda: task.init(key=jr.key(0)))
    loss = lambda p: task.loss(p, key=jr.key(1))
    value, grads = jax.eval_shape(jax.value_and_grad(loss), params)
    assert value.shape == () and jtu.tree_structure(grads) == jtu.tree_structure(params)
