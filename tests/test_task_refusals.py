"""What tasks and their parts refuse, in one sentence, and what they take as it is meant."""

from typing import Any

import jax
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from equistar import tasks


# As a caller without a type checker has it.
untyped: Any = tasks

MASKED = np.ma.masked_equal(np.arange(20) % 3, 2)
ROWS = tasks.dataset_from_arrays(np.ones((20, 5)), np.arange(20) % 3)
ROWS_OF_ROWS = tasks.dataset_from_arrays(np.ones((20, 5, 2)), np.arange(20) % 3)
NUMBERS = tasks.regression_from_arrays(np.ones((20, 5)), np.arange(20.0))
ZEROS = tasks.regression_from_arrays(np.zeros((20, 5)), np.zeros(20))
TEXT = tasks.text_from_tokens(np.arange(400) % 7)
QUADRATIC = tasks.Quadratic(jnp.ones(3))


def _text_slabs(tokens: Any = np.arange(400) % 7, vocabulary: Any = 7, **options):
    options = {"size": 3, "row": 20, "held_out": 2} | options
    return untyped.text_slabs(tokens, tokens, vocabulary, **options)


def _loss(task, **kwargs):
    return task.loss(task.init(key=jr.key(0)), key=jr.key(1), **kwargs)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: untyped.MLP(32), r"`hidden` must be a tuple .*got 32\."),
        (lambda: tasks.Quadratic(jnp.ones(3), np.nan), "`noise` must be finite"),
        (lambda: tasks.LinearTeacher(jnp.ones(3), -1.0, key=jr.key(0)), "`noise` must be"),
        (lambda: untyped.photograph(name="flower"), "did you mean 'flower.jpg'"),
        (
            lambda: _loss(tasks.Classification(ROWS_OF_ROWS, tasks.Transformer(1, 8, 2))),
            "Inputs must be tokens",
        ),
        (lambda: tasks.QuadraticFamily(noise=-1.0), "`noise` must be finite"),
        (lambda: untyped.MLP((8.5,)), r"`hidden` must be a tuple of whole numbers"),
        (lambda: untyped.MLP(norm=tasks.LayerNorm), r"`norm` of MLP is a class.*Norm\(\)"),
        (lambda: untyped.MLP(activation="relu"), r"a function, say `jax\.nn\.relu`"),
        (lambda: untyped.ConvNet(32), "`channels` must be a tuple"),
        (lambda: untyped.ResNet(blocks=1.5), "`blocks` must be a whole number"),
        (lambda: untyped.Recurrent(tasks.LSTM), "`cell` of Recurrent is a class"),
        (lambda: untyped.Transformer(width=8.0), "`width` must be a whole number"),
        (lambda: untyped.Classification(ROWS, batch_size=2.5), "`batch_size` must be a wh"),
        (lambda: untyped.Autoencoding(np.ones((20, 5))), "a Dataset or a RegressionDatas"),
        (lambda: untyped.Autoencoding(ROWS, tasks.MLP), "`architecture` is a class"),
        (lambda: tasks.Autoencoding(ZEROS), "All inputs .* are zero"),
        (lambda: tasks.Regression(ZEROS), "All targets .* are zero"),
        (
            lambda: untyped.VariationalAutoencoding(
                ROWS, likelihood=untyped.GaussianLikelihood
            ),
            "`likelihood` is a class",
        ),
        (lambda: untyped.VariationalAutoencoding(ROWS, "mlp"), "`encoder` must be an inst"),
        (
            lambda: tasks.dataset_from_arrays(np.ma.ones((20, 5)), MASKED),
            "Labels have entries that are masked",
        ),
        (
            lambda: tasks.regression_from_arrays(np.ma.masked_equal(np.eye(20), 0), MASKED),
            "Inputs have entries that are masked: drop or fill",
        ),
        (lambda: tasks.GaussianLikelihood(np.inf), "`deviation` must be positive and fini"),
        (lambda: tasks.PerceptronFamily(ROWS, norms=()), r"`norms` .*say \(NoNorm\(\),\)"),
        (lambda: untyped.ConvNetFamily(ROWS, activations=[]), "`activations` must be a t"),
        (lambda: untyped.LanguageModelling("some text"), r"say `text_from_tokens\(tokens"),
        (lambda: untyped.text_from_tokens("some text"), r"`np\.frombuffer\(text\.encode"),
        (lambda: untyped.text_from_tokens(b"some text"), r"`np\.frombuffer\(text\.encode"),
        (lambda: untyped.Rosenbrock(2.5), "`size` must be a whole number of at least 2"),
        (lambda: untyped.ESGradient("digits"), "`task` must be a task"),
        (lambda: untyped.ESGradient(QUADRATIC, pairs=1.5), "`pairs` must be a whole"),
        (lambda: untyped.LowPrecision(tasks.Rosenbrock), "`task` is a class"),
        (lambda: untyped.Reparametrised(3, key=jr.key(0)), "`task` must be a task"),
        (lambda: untyped.with_label_noise(NUMBERS, 0.1), "a Dataset with classes"),
        (lambda: untyped.with_label_noise(QUADRATIC, 0.1), "a Dataset with classes"),
        (lambda: untyped.named(None), "There is no task 'None': choose one of"),
        (
            lambda: tasks.classification_slabs(np.ones((9, 3)), [(0, 1)], 2, size=1),
            r"`train` must be pairs .*list\(zip\(x, y\)\)",
        ),
        (lambda: tasks.dataset_from_arrays([[1]] * 20, range(20), scale=np.nan), "`scale`"),  # pyright: ignore
        (lambda: tasks.Quadratic(-jnp.ones(3)), "finite and at least 0"),
        (lambda: tasks.Quadratic(jnp.ones((3, 3))), "a vector of eigenvalues"),
        (lambda: tasks.LinearTeacher(-jnp.ones(3), key=jr.key(0)), "at least 0"),
        (lambda: untyped.Quadratic("abc"), "`curvature` must be a vector .*; got 'abc'"),
        (
            lambda: untyped.Quadratic(jnp.ones(3), "a"),
            "`noise` must be one number, say 0.1",
        ),
        (lambda: untyped.LinearTeacher(jnp.ones(3), key=1), "`key` must be one PRNG key"),
        (lambda: untyped.Reparametrised(QUADRATIC, key=0), "`key` must be one PRNG key"),
        (lambda: untyped.LowPrecision(QUADRATIC, "bf"), r"say `jnp\.bfloat16`; got 'bf'"),
        (lambda: untyped.LowPrecision(QUADRATIC, None), r"say `jnp\.bfloat16`; got None"),
        (lambda: untyped.with_label_noise(ROWS, "a"), "`share` must be one number"),
        (lambda: untyped.with_label_noise(ROWS, 0.1, seed=0.5), "`seed` must be a whole"),
        (lambda: untyped.digits("a"), "`seed` must be a whole number"),
        (lambda: untyped.digits_mlp(32), r"`hidden` must be a tuple .*got 32\."),
        (lambda: untyped.digits_convnet(32), r"`channels` must be a tuple .*got 32\."),
        (lambda: untyped.named(["digits_mlp"]), r"There is no task '\['digits_mlp'\]': "),
        (lambda: untyped.suite(["smoke"]), "There is no suite"),
        (lambda: untyped.tfds_images("cifar"), "did you mean 'cifar10'"),
        (lambda: untyped.tfds_images("cifar10", data_dir=3), "`data_dir` must be a path"),
        (
            lambda: untyped.text_from_tokens(np.arange(40), "256"),
            "`vocabulary` must be a w",
        ),
        (
            lambda: untyped.text_from_tokens(np.arange(40), 256.0),
            "`vocabulary` must be a w",
        ),
        (lambda: _text_slabs(np.zeros((2, 200), int)), "`train` must be whole numbers"),
        (lambda: _text_slabs("abc" * 200), "`train` must be whole numbers along one axis"),
        (lambda: _text_slabs(row="a"), "`row` must be a whole number of at least 20"),
        (lambda: _text_slabs(vocabulary="a"), "`vocabulary` must be a whole number"),
        (lambda: untyped.Slabs(5, 1, len), "`source` must be examples by their number"),
        (lambda: untyped.Slabs(iter("ab"), 1, len), "`source` must be examples by their"),
        (lambda: untyped.Slabs(np.ones(9), 4, "x"), "`make` must be a function"),
        (lambda: _loss(tasks.Classification(ROWS), split="tset"), "did you mean 'test'"),
        (lambda: untyped.PerceptronFamily("digits"), "`dataset` must be a Dataset, say"),
        (
            lambda: untyped.PerceptronFamily(ROWS, batch_sizes=32),
            r"`batch_sizes` must be two whole numbers, 1 <= least <= largest; got 32\.",
        ),
        (lambda: untyped.PerceptronFamily(ROWS, widths=(1, 2, 3)), "`widths` must be two"),
        (lambda: untyped.PerceptronFamily(ROWS, depths=(1.5, 2)), "`depths` must be two"),
        (lambda: untyped.ConvNetFamily(ROWS, depths=(0, 1)), "two whole numbers, 1 <= l"),
        (lambda: untyped.QuadraticFamily(5), "`sizes` must be two whole numbers, 2 <= l"),
        (lambda: untyped.QuadraticFamily().sample(key=0), "`key` must be one PRNG key"),
        (lambda: untyped.PerceptronFamily(ROWS).sample(key=0), "`key` must be one PRNG"),
        (lambda: untyped.ConvNetFamily(ROWS).sample(key=0), "`key` must be one PRNG key"),
        (lambda: untyped.Dataset(_splits(), "3", 1.0), "`classes` must be a whole number"),
        (lambda: untyped.Dataset(_splits(), 3.5, 1.0), "`classes` must be a whole number"),
        (lambda: untyped.Dataset(_splits(), 3, None), "`scale` must be one number"),
        (lambda: untyped.Dataset(_splits(), 3, np.inf), "`scale` must be a finite number"),
        (lambda: untyped.TextDataset(TOKENS, 9.5), "`vocabulary` must be a whole number"),
        (lambda: untyped.Examples(jnp.ones((4, 5)), None), "`targets` must be an array"),
    ],
)
def test_arguments_of_another_kind_are_named(as_users_call, make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "task, message",
    [
        (tasks.Classification(ROWS, tasks.Recurrent()), "tokens.*dtype float.*`MLP`"),
        (
            tasks.Classification(ROWS, tasks.Transformer()),
            "tokens.*`LanguageModelling`",
        ),
        (
            tasks.LanguageModelling(TEXT, tasks.MLP(), 8),
            r"MLP returns \(7,\) for an input of \(8,\).*needs \(8, 7\).*`Recurrent`",
        ),
    ],
)
def test_an_architecture_for_other_inputs_is_named(as_users_call, task, message):
    promotion = jax.numpy_dtype_promotion("standard")
    with promotion, pytest.raises(ValueError, match=message):
        _loss(task)


def test_lists_whole_numbers_and_names_of_splits_are_taken_as_they_are_meant(as_users_call):
    assert untyped.MLP([8, 4]) == tasks.MLP((8, 4), jnn.relu)
    assert untyped.ConvNet([4], [1]) == tasks.ConvNet((4,), (1,))
    whole = untyped.Quadratic([1, 2, 3])
    assert _loss(whole) == _loss(tasks.Quadratic(jnp.array([1.0, 2.0, 3.0])))
    lists, arrays = (
        _text_slabs(x, ahead=0) for x in ([*range(7)] * 60, np.arange(420) % 7)
    )
    np.testing.assert_array_equal(lists[0]["train"], arrays[0]["train"])
    task = tasks.Classification(ROWS)
    assert _loss(task, split="test") == _loss(task, split=tasks.Split.TEST)


@pytest.mark.parametrize("kind", [">f2", ">f4", ">f8", ">i2", ">u4", ">i8"])
def test_bytes_in_the_order_of_another_machine_are_taken_as_the_numbers_they_are(kind):
    numbers = np.arange(40).reshape(20, 2)
    classes = np.arange(20) % 2
    ours = tasks.dataset_from_arrays(numbers.astype(kind), classes.astype(">i4"))
    native = np.dtype(kind).newbyteorder("=")
    same = tasks.dataset_from_arrays(numbers.astype(native), classes)
    rows = tasks.regression_from_arrays(numbers, numbers[:, 0].astype(kind))
    for split in tasks.Split:
        np.testing.assert_array_equal(ours[split].inputs, same[split].inputs)
        np.testing.assert_array_equal(rows[split].targets, rows[split].inputs[:, :1])
        assert ours[split].inputs.dtype == same[split].inputs.dtype


def test_numbers_keep_their_values_in_storage():
    shades = np.array([[2**31 - 1], [-(2**31)]] * 10)
    data = tasks.dataset_from_arrays(shades, np.arange(20) % 2)
    stored = np.concatenate([np.asarray(data[s].inputs) for s in tasks.Split])
    assert {int(x) for x in stored.ravel()} == {2**31 - 1, -(2**31)}
    masks = tasks.dataset_from_arrays(shades > 0, np.arange(20) % 2)
    assert masks[tasks.Split.TRAIN].inputs.dtype == jnp.uint8
    # Targets are floating-point numbers, whatever they came as.
    targets = np.arange(20) * 10**12
    rows = tasks.regression_from_arrays(shades, targets)
    stored = np.concatenate([np.asarray(rows[s].targets) for s in tasks.Split])
    np.testing.assert_array_equal(np.sort(stored[:, 0]), targets.astype(np.float32))


def test_classes_that_do_not_occur_are_pointed_out():
    with pytest.warns(
        UserWarning, match=r"classes 0, ..., 2 only 2 occur.*np\.unique"
    ) as w:
        tasks.dataset_from_arrays(np.ones((20, 5)), 1 + np.arange(20) % 2)
    assert w[0].filename == __file__


def _splits(**changes):
    part = tasks.Examples(jnp.ones((4, 5)), jnp.array([0, 1, 2, 0]))
    return {s.value: part for s in tasks.Split} | changes


def _part(inputs, targets):
    return tasks.Examples(jnp.asarray(inputs), jnp.asarray(targets))


FLOATS = _part(np.ones((4, 5)), np.ones((4, 2)))
TOKENS = {s.value: jnp.arange(9) for s in tasks.Split}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: tasks.Dataset({"train": ROWS[tasks.Split.TRAIN]}, 3, 1.0), "four keys"),
        (lambda: tasks.Dataset(_splits(test=jnp.ones(3)), 3, 1.0), "must be Examples"),
        (lambda: tasks.Dataset(_splits(), 2, 1.0), "Labels must be from 0 to 1; .* to 2"),
        (
            lambda: tasks.Dataset(_splits(), 1, 1.0),
            "`classes` must be .* least 2; got 1",
        ),
        (
            lambda: tasks.Dataset(_splits(test=_part(np.ones((1, 5)), [-1])), 3, 1.0),
            "those of 'test' go from -1 to 0",
        ),
        (
            lambda: tasks.Dataset(_splits(test=_part(np.ones((1, 5)), [1.0])), 3, 1.0),
            "Labels must be whole numbers",
        ),
        (
            lambda: tasks.Dataset(_splits(test=_part(np.ones((1, 4)), [1])), 3, 1.0),
            r"Inputs must have one shape .*test float64\[4\]",
        ),
        (
            lambda: tasks.RegressionDataset(_splits(), 1.0),
            "Targets must be rows of floating-point numbers",
        ),
        (
            lambda: tasks.RegressionDataset(_splits(test=FLOATS), 1.0),
            "Targets must have one shape",
        ),
        (lambda: tasks.TextDataset(TOKENS, 8), "Tokens must be from 0 to 7; .* to 8"),
        (lambda: tasks.TextDataset({"train": jnp.arange(9)}, 9), "four keys"),
    ],
)
def test_a_data_set_that_is_put_together_by_hand_is_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def _by_hand(train, **others):
    parts = {s.value: others.get(s.value, train) for s in tasks.Split}
    rows = {
        k: _part(np.asarray(x)[:, None], np.zeros(len(x), int)) for k, x in parts.items()
    }
    return tasks.Dataset(rows, 2, 1.0)


def _regression(targets):
    return tasks.Regression(tasks.regression_from_arrays(np.ones((20, 5)), targets))


GAUSSIAN = tasks.GaussianLikelihood()


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: tasks.VariationalAutoencoding(_by_hand([0.0, 1.0], test=[50.0])),
            r"inputs in \[0, 1\]; those of 'test' are in \[50, 50\]",
        ),
        (
            lambda: tasks.VariationalAutoencoding(_by_hand([0.0, 1.0], test=[np.nan])),
            r"those of 'test' are in \[nan, nan\]",
        ),
        (
            lambda: tasks.VariationalAutoencoding(
                _by_hand([0.0, np.inf]), likelihood=GAUSSIAN
            ),
            "The inputs of the training split, or their squares, are not finite",
        ),
        (lambda: tasks.Autoencoding(_by_hand([0.0, np.nan])), "inputs .* not finite"),
        (lambda: _regression(np.full(20, 1e30)), "not finite.* standardise the targets"),
        (lambda: _regression(np.ones((20, 0))), r"one target for each.*\(20, 0\)"),
        (
            lambda: tasks.RegressionDataset(
                dict.fromkeys(_splits(), _part(np.ones((4, 5)), np.ones((4, 0)))), 1.0
            ),
            r"Targets must be rows .* of shape \(4, 0\)",
        ),
    ],
)
def test_data_that_have_no_finite_loss_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bounds_of_many_inputs_in_an_order_are_of_inputs_from_everywhere():
    # One in six is 1, at the end; every second one is looked at.
    task = tasks.Autoencoding(_by_hand([0.0] * 5000 + [1.0] * 1000))
    np.testing.assert_allclose(task.loss_bounds[1], 1.5 / 6, rtol=1e-6)


def test_data_sets_by_hand_may_be_of_numpy_arrays(as_users_call):
    def drawn(array):
        part = untyped.Examples(array(np.arange(8.0)), array(np.arange(8)))
        text = untyped.TextDataset({s.value: array(np.arange(9)) for s in tasks.Split}, 9)
        batch = jax.jit(lambda key: part.batch(5, key=key))(jr.key(0))
        windows = jax.jit(lambda key: text.windows("test", 3, 2, key=key))(jr.key(0))
        return *batch, windows

    for ours, theirs in zip(drawn(np.asarray), drawn(jnp.asarray), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_data_sets_by_hand_that_are_whole_are_taken():
    assert tasks.Dataset(_splits(), 3, 1.0).in_shape == (5,)
    assert tasks.TextDataset(TOKENS, 9).vocabulary == 9
    floats = {s.value: FLOATS for s in tasks.Split}
    assert tasks.RegressionDataset(floats, 1.0).out_size == 2
