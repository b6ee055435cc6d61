"""Slabs: pieces of a large data set, the same however they are come to."""

import threading
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar import tasks
from equistar._meta_training._meta_step import _estimate


def _slabs(source: tasks.RandomAccess = np.arange(10), size: Any = 4, **options):
    return tasks.Slabs(source, size, lambda slab: slab, **options)


def _reading_threads():
    return [t for t in threading.enumerate() if t.name.startswith("grain-prefetch")]


# 1. The order.


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_every_example_is_seen_once_an_epoch_in_another_order_each(ahead):
    with _slabs(seed=3, ahead=ahead) as slabs:
        seen = np.concatenate([slabs[n] for n in range(5)])
    first, second = seen[:10], seen[10:]
    np.testing.assert_array_equal(np.sort(first), np.arange(10))
    np.testing.assert_array_equal(np.sort(second), np.arange(10))
    assert np.any(first != second) and np.any(first != np.arange(10))


def test_slabs_are_the_same_in_any_order_and_ahead_of_time_or_not():
    with _slabs(seed=3) as slabs:
        in_order = [slabs[n] for n in range(8)]
    for ahead in (0, 1, 3):
        with _slabs(seed=3, ahead=ahead) as slabs:
            for n in (5, 6, 2, 2, 3, 7, 0):
                np.testing.assert_array_equal(slabs[n], in_order[n])
    with _slabs(seed=3, size=1) as slabs:
        np.testing.assert_array_equal(slabs[2], in_order[0][2:3])
    with _slabs(seed=4) as slabs:
        assert np.any(slabs[0] != in_order[0])


class _Counted:
    """Counts what is read, and is slow enough for a reader to be waited for."""

    def __init__(self):
        self.read = 0

    def __len__(self):
        return 100

    def __getitem__(self, i):
        self.read += 1
        return np.array(i)


def test_the_next_slab_is_read_while_this_one_is_used():
    source = _Counted()
    with _slabs(source, 10, ahead=2) as slabs:
        slabs[0]
        deadline = time.monotonic() + 30
        while source.read < 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        # Slab 0 and the two after it, and no more.
        assert source.read == 30
        # What is held is not read again.
        assert slabs[0] is slabs[0]
        assert source.read == 30


# 2. Errors, and the end.


class _Broken:
    """Example 3 cannot be read, until it can."""

    def __init__(self):
        self.whole = False

    def __len__(self):
        return 8

    def __getitem__(self, i):
        if i == 3 and not self.whole:
            raise OSError("the disk is gone")
        return np.array(i)


def test_an_error_of_the_reader_is_one_sentence_where_its_slab_is_asked_for():
    source = _Broken()
    with _slabs(source, 2) as slabs:
        failed = {}
        for n in range(4):
            try:
                slabs[n]
            except RuntimeError as e:
                failed[n] = str(e)
        ((number, message),) = failed.items()
        assert message.startswith(
            f"Slab {number} cannot be read (OSError: the disk is gone)"
        )
        source.whole = True
        with _slabs(np.arange(8), 2) as whole:
            for n in (number, number + 1):
                np.testing.assert_array_equal(slabs[n], whole[n])


def test_closing_ends_the_thread():
    before = _reading_threads()
    slabs = _slabs()
    slabs[0]
    (thread,) = [t for t in _reading_threads() if t not in before]
    slabs.close()
    slabs.close()
    thread.join(timeout=30)
    assert not thread.is_alive()
    with pytest.raises(RuntimeError, match="after `close`"):
        slabs[1]


class _Slow:
    """The first 1,000 reads take no time; as many more would take a minute and a half."""

    def __init__(self):
        self.read = 0

    def __len__(self):
        return 2000

    def __getitem__(self, i):
        self.read += 1
        if self.read > 1000:
            time.sleep(0.09)
        return np.array(i)


def test_closing_does_not_wait_for_the_rest_of_a_slab():
    before = _reading_threads()
    with _slabs(_Slow(), 1000) as slabs:
        slabs[0]
        (thread,) = [t for t in _reading_threads() if t not in before]
    thread.join(timeout=30)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: _slabs(size=11), "number of examples, 10; got 11"),
        (lambda: _slabs(size=0), "`size` must be a whole number of at least 1"),
        (lambda: _slabs(size=2.5), "`size` must be a whole number of at least 1; got 2.5"),
        (lambda: _slabs(ahead=-1), "`ahead` must be a whole number of at least 0"),
        (lambda: _slabs(ahead=1.5), "`ahead` must be a whole number of at least 0"),
        (lambda: _slabs(seed=-1), "`seed` must be a whole number of at least 0"),
        (lambda: _slabs(seed=2**32), r"`seed` must be below 2\*\*32"),
        (lambda: _text(size=20), "do not fit into 400 tokens"),
        (lambda: _images(size=90), "do not fit into 100 examples"),
        (lambda: _feed(_images(ahead=0), every=0), "`every` must be .* at least 1"),
    ],
)
def test_mistakes_are_named(make, message, as_users_call):
    with pytest.raises(ValueError, match=message):
        make()


def test_slabs_are_numbered_from_0():
    with _slabs() as slabs, pytest.raises(IndexError, match="from 0"):
        slabs[-1]


def test_a_number_that_is_not_whole_is_named(as_users_call):
    half: Any = 1.5
    with _slabs() as slabs, pytest.raises(ValueError, match="0, 1, 2 and so on; got 1"):
        slabs[half]


# 3. Data sets of slabs.


class _Numbered:
    """Images whose four bytes are their number, of label number modulo 3."""

    def __init__(self, count, start=0):
        self.count, self.start = count, start

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        image = np.full((2, 2, 1), self.start + i, np.uint8)
        return image, np.int32((self.start + i) % 3)


def _images(size=30, seed=0, **options):
    train, test = _Numbered(100), _Numbered(40, 200)
    return tasks.classification_slabs(
        train, test, 3, size=size, held_out=10, scale=1 / 255, seed=seed, **options
    )


def _numbers(dataset, split):
    examples = dataset[split]
    numbers = np.asarray(examples.inputs)[:, 0, 0, 0]
    np.testing.assert_array_equal(numbers % 3, examples.targets)
    return numbers


def test_labels_that_are_no_classes_are_refused():
    with pytest.raises(ValueError, match="Labels must be from 0 to 1; got 0 to 2"):
        tasks.classification_slabs(
            _Numbered(100), _Numbered(40, 200), 2, size=30, held_out=10
        )


def _pairs(pair, **options):
    """The first slab of 100 pairs."""
    train, test = [pair(i) for i in range(100)], [pair(0)]
    options = {"classes": 2, "size": 30, "held_out": 2, "ahead": 0} | options
    slabs: Any = tasks.classification_slabs
    return slabs(train, test, **options)[0]


@pytest.mark.parametrize(
    "pair, options, message",
    [
        (lambda i: (np.array([2**40 + i]), 0), {}, "Inputs are kept as int32"),
        (lambda i: (np.array([1e300]), 0), {}, "Inputs are kept as float32"),
        (lambda i: (np.array([np.nan]), 0), {}, "Inputs must be finite real numbers"),
        (lambda i: (np.ones(1), 0.7), {}, "Labels must be integers .* dtype float64"),
        (lambda i: (np.ones(1), np.eye(2)[0]), {}, "one whole number for each example"),
        (lambda i: (np.ones(1 + i % 2), 0), {}, r"one has \(2,\) where .* \(1,\): crop"),
        (lambda i: (np.ones(1), 0), {"scale": np.nan}, "`scale` must be a finite number"),
        (lambda i: (np.ones(1), 0), {"held_out": 2.0}, "`held_out` must be a whole"),
        (lambda i: (np.ones(1), 0), {"classes": "2"}, "`classes` must be a whole"),
    ],
)
def test_examples_of_slabs_are_checked_as_those_of_arrays(
    pair, options, message, as_users_call
):
    with pytest.raises(ValueError, match=message):
        _pairs(pair, **options)


def test_a_slab_is_checked_when_it_is_asked_for():
    # It is not among the four that are held out, which are read before.
    with pytest.raises(ValueError, match="Inputs must be finite real numbers"):
        _pairs(lambda i: (np.array([np.nan if i == 50 else 1.0]), 0), size=96)


def test_inputs_of_slabs_may_be_lists():
    first = _pairs(lambda i: ([i, 2], i % 2))
    part = first[tasks.Split.TRAIN]
    assert first.in_shape == (2,)
    np.testing.assert_array_equal(part.inputs[:, 0] % 2, part.targets)


def test_held_out_images_stay_and_are_in_no_slab():
    held = [s for s in tasks.Split if s is not tasks.Split.TRAIN]
    with _images() as slabs:
        first = slabs[0]
        parts = {s: _numbers(first, s) for s in held}
        learned = []
        for n in range(8):
            dataset = slabs[n]
            learned.append(_numbers(dataset, tasks.Split.TRAIN))
            for split in held:
                np.testing.assert_array_equal(_numbers(dataset, split), parts[split])
    assert [len(x) for x in parts.values()] == [10, 10, 10]
    assert first.in_shape == (2, 2, 1) and first.scale == 1 / 255
    # 80 examples are left to learn from: three epochs, all of them in each.
    epochs = np.concatenate(learned).reshape(3, 80)
    rest = np.setdiff1d(np.arange(100), np.concatenate([parts[s] for s in held[:2]]))
    assert len(rest) == 80
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), rest)
    assert parts[tasks.Split.TEST].min() >= 200


def _text(size=3, **options):
    tokens = np.arange(400, dtype=np.uint16)
    return tasks.text_slabs(
        tokens, tokens[::-1], 500, size=size, row=20, held_out=2, **options
    )


def test_text_is_cut_into_rows_of_which_slabs_are_made():
    with _text() as slabs:
        datasets = [slabs[n] for n in range(16)]
    rows = [np.asarray(d[tasks.Split.TRAIN]).reshape(3, 20) for d in datasets]
    # 16 rows of 20 are to learn from, and then two for each held-out split.
    epochs = np.concatenate(rows).reshape(3, 16, 20)
    for epoch in epochs:
        np.testing.assert_array_equal(np.diff(epoch, axis=1), 1)
        np.testing.assert_array_equal(np.sort(epoch[:, 0]), 20 * np.arange(16))
    for dataset in datasets:
        first = [int(dataset[s][0]) for s in tasks.Split][1:]
        assert first == [320, 360, 399] and dataset.vocabulary == 500
    windows = datasets[0].windows(tasks.Split.TRAIN, 5, 8, key=jr.key(0))
    assert windows.shape == (8, 5)


def test_text_may_be_a_file(tmp_path):
    path = tmp_path / "tokens"
    np.arange(400, dtype=np.uint16).tofile(path)
    mapped = np.memmap(path, np.uint16, mode="r")
    options = {"size": 3, "row": 20, "held_out": 2}
    with tasks.text_slabs(mapped, mapped[::-1], 500, **options) as there, _text() as here:
        assert eqx.tree_equal(there[4], here[4])
    with pytest.raises(ValueError, match="below `vocabulary`, 300"):
        tasks.text_slabs(mapped, mapped, 300, **options)
    # The held-out rows have small numbers only: it is found in a slab.
    with tasks.text_slabs(mapped[::-1], mapped, 300, **options) as slabs:
        with pytest.raises(RuntimeError, match=r"Slab \d .*below `vocabulary`, 300"):
            for n in range(6):
                slabs[n]


# 4. Meta-training.


def _task(dataset):
    return tasks.Classification(dataset, tasks.MLP((3,)), 4)


def _feed(slabs, every=2, make=_task):
    return eqs.SlabFeed(slabs, make, every)


def _meta_train(slabs, steps, checkpoints: eqs.AbstractCheckpoints = eqs.NoCheckpoints()):
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    estimator = eqs.PES(2, 2, 0.1, eqs.ConstantLength(4))
    return eqs.meta_train(
        _feed(slabs),
        estimator,
        sgd,
        optax.sgd(0.1),
        steps=steps,
        key=jr.key(0),
        checkpoints=checkpoints,
    )


def test_a_feed_changes_its_slab_every_so_many_steps():
    with _images() as slabs, _images(ahead=0) as same:
        feed = _feed(slabs, every=3)
        for step in (0, 1, 2, 3, 5, 6, 1):
            unroll = feed.at(step)
            assert isinstance(unroll, eqs.InnerTraining)
            assert eqx.tree_equal(unroll.task, _task(same[step // 3]))
        assert feed.at(1) is feed.at(2)


def test_a_run_is_refused_for_slabs_of_another_seed_or_size(tmp_path):
    kept = eqs.Checkpoints(tmp_path)
    with _images(seed=3) as slabs:
        size = slabs.size
        _meta_train(slabs, 1, kept)
    for options, message in (
        ({"seed": 4}, r"unroll\.slabs\.seed = 3, and this one has 4"),
        ({"seed": 3, "size": size - 1}, rf"unroll\.slabs\.size = {size}, and this one"),
    ):
        with _images(**options) as others:
            with pytest.raises(eqs.CheckpointError, match=message):
                _meta_train(others, 2, kept)


def test_a_feed_whose_slab_could_not_be_had_asks_for_it_again():
    broken = []

    def fragile(dataset):
        if broken:
            raise OSError(broken.pop())
        return _task(dataset)

    with _images() as slabs, _images(ahead=0) as same:
        feed = _feed(slabs, every=1, make=fragile)
        feed.at(0)
        broken.append("the disk is gone")
        with pytest.raises(OSError, match="the disk is gone"):
            feed.at(1)
        for step in (1, 0):
            unroll: Any = feed.at(step)
            assert eqx.tree_equal(unroll.task, _task(same[step]))


def test_a_run_that_goes_on_in_the_middle_of_a_slab_ends_at_the_same_bits(tmp_path):
    _estimate._cached._clear_cache()  # pyright: ignore
    with _images() as slabs:
        whole = _meta_train(slabs, 9)
    # Slabs 0 to 4 are all seen by one program.
    assert _estimate._cached._cache_size() == 1  # pyright: ignore
    with _images() as slabs:
        _meta_train(slabs, 5, eqs.Checkpoints(tmp_path))
    with _images() as slabs:
        parts = _meta_train(slabs, 9, eqs.Checkpoints(tmp_path))
    assert eqx.tree_equal(parts.state, whole.state)
    assert eqx.tree_equal(parts.history, whole.history)
    with _images(seed=1) as slabs:
        other = _meta_train(slabs, 9)
    assert not eqx.tree_equal(other.theta, whole.theta)


def test_what_is_fixed_in_a_task_is_that_of_the_first_slab():
    autoencoding = lambda dataset: tasks.Autoencoding(dataset, tasks.MLP((2,)), 4)
    with _images() as slabs:
        feed = _feed(slabs, make=autoencoding)
        later, first = feed.at(2), feed.at(0)
        assert isinstance(first, eqs.InnerTraining)
        bounds = [autoencoding(slabs[n]).loss_bounds for n in (0, 1)]
    assert jtu.tree_structure(later) == jtu.tree_structure(first)
    assert bounds[0] != bounds[1] and first.task.loss_bounds == bounds[0]


def test_tasks_of_other_shapes_are_refused():
    def growing(dataset):
        sizes.append(len(sizes))
        return tasks.Quadratic(jnp.ones(len(sizes)))

    sizes = []
    with _images() as slabs, pytest.raises(ValueError, match="task of slab 1 has arrays"):
        feed = _feed(slabs, make=growing)
        feed.at(2)


def test_a_streamed_task_has_its_first_slab():
    opened = []

    def open_slabs(ahead):
        opened.append(_images(ahead=ahead))
        return opened[-1]

    task = tasks.StreamedTask(open_slabs, _task).first()
    with _images() as slabs:
        assert eqx.tree_equal(task, _task(slabs[0]))
    with pytest.raises(RuntimeError, match="after `close`"):
        opened[0][0]
    value = task.loss(task.init(key=jr.key(0)), key=jr.key(1))
    assert jax.numpy.isfinite(value)
