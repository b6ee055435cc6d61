"""A run goes on after anything, to the bits of one that was never interrupted."""

import functools as ft
import json
import math
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import ml_dtypes
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar._files import link_or_copy
from equistar._meta_training._checkpoint_file import (
    check_run,
    DamagedCheckpoint,
    read_checkpoint,
)
from equistar._meta_training._settings import differences, fixed_parts, plain_settings


ESTIMATOR = eqs.PES(3, 4, 0.1, eqs.LogUniformLength(2, 7))
WIDER = eqs.PES(3, 4, 0.2, eqs.LogUniformLength(2, 7))
THETA = {"a": jnp.asarray(0.5), "b": jnp.ones(2)}


class Walk(eqs.AbstractUnroll):
    """A random walk that theta pulls; its carry holds integers and a key, too."""

    def init(self, theta, *, key):
        return jnp.zeros(()), jnp.zeros((), jnp.int32), key

    def step(self, theta, carry, *, key):
        x, n, own = carry
        pull = theta["a"] * jnp.tanh(x) + jnp.sum(theta["b"]) / 10
        x = x - pull + 0.1 * jr.normal(jr.fold_in(own, n), (), x.dtype)
        return (x, n + 1, own), x**2


def _run(steps, checkpoints, **options):
    return eqs.meta_train(
        Walk(),
        ESTIMATOR,
        THETA,
        steps=steps,
        key=jr.key(0),
        checkpoints=checkpoints,
        **options,
    )


@pytest.fixture(scope="module")
def unbroken():
    return _run(12, eqs.NoCheckpoints())


def _assert_same(one, other):
    leaves = jtu.tree_leaves((one.state, one.history))
    for a, b in zip(leaves, jtu.tree_leaves((other.state, other.history)), strict=True):
        if jnp.issubdtype(a.dtype, jnp.inexact) or jnp.issubdtype(a.dtype, jnp.integer):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("stop", [1, 5, 8, 12])
def test_a_run_goes_on_to_the_same_bits(tmp_path, unbroken, stop):
    checkpoints = eqs.Checkpoints(tmp_path, every=3)
    _run(stop, checkpoints)
    _assert_same(_run(12, checkpoints), unbroken)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_run_with_arrays_of_numpy_goes_on(tmp_path, dtype):
    theta = {"step": np.asarray(0.1, dtype), "table": np.arange(3)}

    class Descent(eqs.AbstractUnroll):
        def init(self, theta, *, key):
            return jnp.ones(2, dtype)

        def step(self, theta, carry, *, key):
            return (1 - theta["step"]) * carry, 0.5 * jnp.sum(carry**2)

    def run(steps: int, checkpoints: eqs.AbstractCheckpoints = eqs.NoCheckpoints()):
        unroll, pes = Descent(), eqs.PES(window=2, pairs=2, length=4)
        settings = {"steps": steps, "key": jr.key(0), "checkpoints": checkpoints}
        return eqs.meta_train(unroll, pes, theta, optax.sgd(0.1), **settings)

    run(2, eqs.Checkpoints(tmp_path))
    gone_on = run(4, eqs.Checkpoints(tmp_path))
    assert gone_on.theta["step"].dtype == dtype
    _assert_same(gone_on, run(4))


def test_a_run_that_is_done_does_nothing_more(tmp_path, unbroken):
    checkpoints = eqs.Checkpoints(tmp_path)
    _run(12, checkpoints)
    seen = []

    class Told(eqs.AbstractLogger):
        def __call__(self, step, metrics, theta):
            seen.append(step)

    _assert_same(_run(12, checkpoints, logger=Told()), unbroken)
    assert seen == []


def test_a_logger_that_raises_loses_no_meta_step(tmp_path, unbroken):
    class Full(eqs.AbstractLogger):
        def __call__(self, step, metrics, theta):
            if step == 5:
                raise OSError("no room")

    checkpoints = eqs.Checkpoints(tmp_path, every=100)
    with pytest.raises(OSError, match="no room"):
        _run(12, checkpoints, logger=Full())
    kept = checkpoints.history()
    assert kept is not None and len(kept.meta_loss) == 5
    _assert_same(_run(12, checkpoints), unbroken)


def test_a_run_that_is_asked_for_fewer_steps_than_it_has_made_is_refused(tmp_path):
    checkpoints = eqs.Checkpoints(tmp_path)
    _run(3, checkpoints)
    with pytest.raises(eqs.CheckpointError, match="at 3 meta-steps already, and 2 are ask"):
        _run(2, checkpoints)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_a_theta_of_another_dtype_is_refused_and_of_its_own_goes_on(tmp_path, dtype):
    theta = jnp.asarray(0.1, dtype)
    run = lambda theta, steps: eqs.meta_train(
        _Overshot(),
        eqs.FullBackprop(1, 1),
        theta,
        optax.sgd(1.0),
        steps=steps,
        key=jr.key(0),
        checkpoints=eqs.Checkpoints(tmp_path),
    )
    first = run(theta, 1)
    again = run(theta, 1)
    assert again.theta.dtype == dtype and again.theta == first.theta
    with pytest.raises(eqs.CheckpointError, match="and this one float64 of shape"):
        run(jnp.asarray(0.1, jnp.float64), 2)
    longer = run(theta, 2).history.meta_loss
    assert longer.shape == (2,) and longer[0] == first.history.meta_loss[0]


def test_only_the_newest_are_kept(tmp_path):
    _run(12, eqs.Checkpoints(tmp_path, every=2, keep=2))
    names = sorted(p.name for p in tmp_path.glob("checkpoint-*.npz"))
    assert names == ["checkpoint-0000000010.npz", "checkpoint-0000000012.npz"]


def test_what_is_damaged_does_not_crowd_out_what_is_whole(tmp_path, unbroken):
    _run(12, eqs.Checkpoints(tmp_path, every=4, keep=3))
    (tmp_path / "checkpoint-0000000012.npz").write_text("text")
    with pytest.warns(UserWarning, match="damaged"):
        _run(10, eqs.Checkpoints(tmp_path, every=1, keep=1))
    (whole,) = tmp_path.glob("checkpoint-*10.npz")
    (tmp_path / "checkpoint-0000000012.npz").unlink()
    _assert_same(_run(12, eqs.Checkpoints(tmp_path)), unbroken)
    assert whole.exists()


def test_the_best_is_used_where_no_other_is_whole(tmp_path, unbroken):
    _run(12, eqs.Checkpoints(tmp_path, every=4, keep=2))
    for path in tmp_path.glob("checkpoint-*.npz"):
        # The best may be a second name of the same file.
        path.unlink()
        path.write_text("text")
    with pytest.warns(UserWarning, match="damaged"):
        _assert_same(_run(12, eqs.Checkpoints(tmp_path)), unbroken)


def test_what_a_kill_in_a_write_has_left_is_removed_and_nothing_else(tmp_path):
    left = tmp_path / ".checkpoint-0000000002.npz.0123456789abcdef"
    also = tmp_path / ".best-0000000002.npz.0123456789abcdef"
    own = tmp_path / ".notes.0123456789abcdef"
    for path in (left, also, own):
        path.write_text("half")
    _run(1, eqs.Checkpoints(tmp_path))
    assert not left.exists() and not also.exists() and own.exists()


def test_a_checkpoint_of_a_newer_version_is_called_that(tmp_path, monkeypatch):
    with monkeypatch.context() as newer:
        newer.setattr("equistar._meta_training._checkpoint_file.FORMAT_VERSION", 99)
        _run(2, eqs.Checkpoints(tmp_path))
    with pytest.raises(eqs.CheckpointError, match="newer version of equistar: upgrade"):
        _run(4, eqs.Checkpoints(tmp_path))


def test_the_users_mask_decides_who_may_read_a_file(tmp_path):
    before = os.umask(0o077)
    try:
        _run(2, eqs.Checkpoints(tmp_path))
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in tmp_path.glob("*.npz")} == {0o600}


def test_a_link_goes_on_to_name_the_file_that_is_written(tmp_path):
    link = tmp_path / "link.npz"
    link.symlink_to(tmp_path / "elsewhere.npz")
    eqs.save(link, eqs.HyperparamController(key=jr.key(0)))
    assert link.is_symlink() and (tmp_path / "elsewhere.npz").is_file()


def test_a_second_name_replaces_an_older_file_of_that_name(tmp_path):
    new, best = tmp_path / "new", tmp_path / "best"
    new.write_text("new")
    best.write_text("old")
    for _ in range(2):
        link_or_copy(new, best)
        assert best.read_text() == "new"
        assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "new"]


class _Overshot(eqs.AbstractUnroll):
    """The loss |theta - 3|, with a slope that leads past its minimum: always -1."""

    def init(self, theta, *, key):
        return jnp.zeros(())

    def step(self, theta, carry, *, key):
        here = jax.lax.stop_gradient(theta)
        return carry, jnp.abs(here - 3) + (here - theta)


def _overshoot(steps, checkpoints):
    args = _Overshot(), eqs.FullBackprop(1, 1), jnp.zeros(()), optax.sgd(1.0)
    return eqs.meta_train(*args, steps=steps, key=jr.key(0), checkpoints=checkpoints)


def test_the_best_is_kept_besides_the_newest(tmp_path):
    checkpoints = eqs.Checkpoints(tmp_path, every=1, keep=2)
    # Step n has the loss |n - 4|, of theta = n - 1. Their mean, in which the smoothing has
    # all but equal weights, is 3, 5/2, 2, 3/2, 7/5, 3/2, 12/7: lowest after step 5.
    last = _overshoot(7, checkpoints)
    names = {p.name for p in tmp_path.glob("*.npz")}
    expected = ("best-0000000005", "checkpoint-0000000006", "checkpoint-0000000007")
    assert names == {f"{name}.npz" for name in expected}
    best, history = checkpoints.restore_best(last.state)
    assert best.step == 5 and best.theta == 5
    assert history is not None and len(history.meta_loss) == 5
    # Of a run that goes on, too.
    assert _overshoot(9, checkpoints).theta == 9
    assert [p.name for p in tmp_path.glob("best-*")] == ["best-0000000005.npz"]
    checkpoints.clear()
    assert not list(tmp_path.glob("*.npz"))


def test_copies_by_names_of_a_users_own_are_left_alone(tmp_path):
    checkpoints = eqs.Checkpoints(tmp_path, every=1, keep=2)
    _overshoot(6, checkpoints)
    # Letters sort behind all numbers.
    mine = [tmp_path / "best-mine.npz", tmp_path / "checkpoint-backup.npz"]
    for path in mine:
        shutil.copy(tmp_path / "best-0000000005.npz", path)
    history = checkpoints.history()
    assert history is not None and len(history.meta_loss) == 6
    result = _overshoot(9, checkpoints)
    assert len(result.history.meta_loss) == 9 and result.theta == 9
    assert checkpoints.newest() == tmp_path / "checkpoint-0000000009.npz"
    assert [p.name for p in tmp_path.glob("best-0*")] == ["best-0000000005.npz"]
    checkpoints.clear()
    assert sorted(tmp_path.glob("*.npz")) == mine


def test_a_slow_run_is_kept_by_the_clock(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    seen = []

    class Slow(eqs.AbstractLogger):
        def __call__(self, step, metrics, theta):
            now[0] += 25.0
            seen.append(len(list(tmp_path.glob("checkpoint-*.npz"))))

    checkpoints = eqs.Checkpoints(tmp_path, every=100, keep=9, minutes=1.0)
    _run(8, checkpoints, logger=Slow())
    # Each step takes 25 s and ends after its checkpoint: the first that begins a minute
    # or more after the last writing is the fourth, then the seventh; the eighth is last.
    assert seen == [0, 0, 0, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_run_after_its_step_and_it_goes_on(
    tmp_path, unbroken, number, capfd, hears_interrupts
):
    class Interrupts(eqs.AbstractLogger):
        def __call__(self, step, metrics, theta):
            if step == 5:
                signal.raise_signal(number)

    checkpoints = eqs.Checkpoints(tmp_path)
    usual = signal.getsignal(number)
    if number == signal.SIGTERM:
        # A script that is told to end must not go on with what comes next.
        with pytest.raises(SystemExit, match="143"):
            _run(12, checkpoints, logger=Interrupts())
    else:
        result = _run(12, checkpoints, logger=Interrupts())
        assert result.result == eqs.RESULTS.interrupted and result.state.step == 6
    history = checkpoints.history()
    assert history is not None and len(history.meta_loss) == 6
    said = capfd.readouterr().err
    assert "which may still be compiling" in said and "Press Ctrl-C again" in said
    assert signal.getsignal(number) is usual
    _assert_same(_run(12, checkpoints), unbroken)


def test_a_request_to_terminate_after_ctrl_c_ends_the_script(tmp_path, hears_interrupts):
    class Both(eqs.AbstractLogger):
        def __call__(self, step, metrics, theta):
            if step == 5:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit, match="143"):
        _run(12, eqs.Checkpoints(tmp_path), logger=Both())


def test_the_second_interrupt_ends_the_run_at_once(tmp_path, unbroken, hears_interrupts):
    class Twice(eqs.AbstractLogger):
        def __call__(self, step, metrics, theta):
            if step == 5:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    checkpoints = eqs.Checkpoints(tmp_path)
    assert _run(12, checkpoints, logger=Twice()).state.step == 5
    _assert_same(_run(12, checkpoints), unbroken)


# One bit of an archive's directory: an unknown method, an encrypted file, another name.
BITS = {"method": (b"PK\1\2", 10, 4), "encrypted": (b"PK\1\2", 8, 1)}
BITS["name"] = (b"leaf_0.npy", 5, 1)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "empty", *BITS])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    tmp_path, unbroken, damage
):
    checkpoints = eqs.Checkpoints(tmp_path, every=3)
    _run(9, checkpoints)
    newest = tmp_path / "checkpoint-0000000009.npz"
    whole = newest.read_bytes()
    flipped = bytearray(whole)
    # In an array's numbers: archives have bytes, such as times, that mean nothing.
    flipped[whole.index(b"\x93NUMPY") + 128] ^= 1
    directory = {}
    for name, (where, offset, bit) in BITS.items():
        directory[name] = bytearray(whole)
        directory[name][whole.rindex(where) + offset] ^= bit
    newest.write_bytes(
        {
            "truncated": whole[: len(whole) // 2],
            "flipped": bytes(flipped),
            "foreign": b"something else",
            "empty": b"",
            **directory,
        }[damage]
    )
    history = checkpoints.history()
    assert history is not None and len(history.meta_loss) == 6
    match = "checkpoint-0000000009.npz is damaged"
    with pytest.warns(UserWarning, match=match) as heard:
        result = _run(12, checkpoints)
    assert heard[0].filename == __file__
    _assert_same(result, unbroken)


def test_a_wrong_bit_anywhere_is_found_or_changes_nothing(tmp_path):
    _run(1, eqs.Checkpoints(tmp_path))
    path = tmp_path / "checkpoint-0000000001.npz"
    whole, (header, arrays) = path.read_bytes(), read_checkpoint(path)
    found = 0
    for place in range(0, len(whole), 17):
        wrong = bytearray(whole)
        wrong[place] ^= 1 << place % 8
        path.write_bytes(bytes(wrong))
        try:
            its_header, its_arrays = read_checkpoint(path)
        except DamagedCheckpoint:
            found += 1
            continue
        assert its_header == header and {*its_arrays} == {*arrays}
        assert all(x.tobytes() == arrays[name].tobytes() for name, x in its_arrays.items())
    assert found > len(whole) / 17 / 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((None,), "`folder` must be a path"),
        (("x", 1, 1, {}, "a"), "`minutes` must be a number of minutes, .*got 'a'"),
        (("x", 1, 1, "sigma"), "`settings` must be a dictionary"),
    ],
)
def test_arguments_of_another_kind_are_named(as_users_call, arguments, message):
    with pytest.raises(ValueError, match=message):
        eqs.Checkpoints(*arguments)


def test_another_run_is_refused(tmp_path):
    _run(2, eqs.Checkpoints(tmp_path, settings={"sigma": 0.1}))
    with pytest.raises(eqs.CheckpointError, match=r"sigma = 0\.1, and this one has 0\.2"):
        _run(2, eqs.Checkpoints(tmp_path, settings={"sigma": 0.2}))
    wider = eqs.PES(3, 6, 0.1, eqs.LogUniformLength(2, 7))
    message = r"run with estimator\.pairs = 4, and this one has 6"
    with pytest.raises(eqs.CheckpointError, match=message):
        eqs.meta_train(
            Walk(),
            wider,
            THETA,
            steps=3,
            key=jr.key(0),
            checkpoints=eqs.Checkpoints(tmp_path, settings={"sigma": 0.1}),
        )


_LONG = np.arange(2000)


@pytest.mark.parametrize(
    "before, after",
    [
        # What `str` shows alike: NumPy abbreviates, Equinox shows the shape only.
        (_LONG, np.where(_LONG == 1000, 0, _LONG)),
        (_LONG, _LONG.astype(np.uint64)),
        ([jnp.zeros(2)], [jnp.ones(2)]),
        (eqs.tasks.Quadratic(jnp.ones(3)), eqs.tasks.Quadratic(2 * jnp.ones(3))),
        (eqs.tasks.MLP((3,), jax.nn.relu), eqs.tasks.MLP((3,), jax.nn.tanh)),
        (jr.key(0), jr.key(1)),
    ],
)
def test_settings_are_compared_whole(tmp_path, before, after):
    path = tmp_path / "checkpoint-0000000001.npz"
    header = {"settings": json.loads(json.dumps(plain_settings({"it": before})))}
    check_run(path, header, {"it": before}, None)
    with pytest.raises(eqs.CheckpointError, match="was written by a run with it = "):
        check_run(path, header, {"it": after}, None)


class Pulled(Walk):
    """A walk of another strength."""

    strength: float = 1.0
    names: tuple[str, ...] = ("a",)
    links: Any = jnp.tanh
    data: Any = eqx.field(default_factory=lambda: np.zeros(3))
    _seen: list[int] = eqx.field(default_factory=list)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"unroll": Pulled(2.0)}, r"unroll\.strength = 1\.0, and this one has 2\.0"),
        (
            {"unroll": Pulled(names=("a", "b"))},
            r"unroll\.names = \['a'\], and this one has",
        ),
        ({"unroll": Pulled(links=jnp.sin)}, r"unroll\.links = 'tanh', .* has 'sin'"),
        ({"unroll": Pulled(data=np.zeros(4))}, r"unroll\.data = 'an array of shape \(3,\)"),
        ({"unroll": Walk()}, "unroll = 'Pulled', and this one has 'Walk'"),
        ({"theta": THETA | {"scale": 10.0}}, r"theta\.scale = 0\.001, .* has 10\.0"),
        ({"estimator": WIDER}, r"estimator\.sigma = 0\.1, .* has 0\.2"),
        (
            {"trainable": {"a": True, "b": False, "scale": False}},
            r"trainable\.b = True, and this one has None",
        ),
    ],
)
def test_a_run_of_other_parts_is_refused(tmp_path, changed, message):
    parts = {"unroll": Pulled(), "estimator": ESTIMATOR, "theta": THETA | {"scale": 1e-3}}
    run = lambda steps, **more: eqs.meta_train(
        **(parts | more),
        steps=steps,
        key=jr.key(0),
        checkpoints=eqs.Checkpoints(tmp_path),
    )
    run(1)
    # What a run makes is none of its parts, and numbers in an array are not compared; what
    # is trained may be said in other ways.
    same = Pulled(data=np.ones(3), _seen=[1])
    trainable = {"a": True, "b": True, "scale": False}
    assert run(2, unroll=same, trainable=trainable).state.step == 2
    with pytest.raises(eqs.CheckpointError, match=message):
        run(3, **changed)


class Answers:
    """It has an attribute of any name."""

    def __init__(self, size):
        self.size = size

    def __getattr__(self, name):
        return lambda *arguments: 3


@pytest.mark.parametrize(
    "one, other",
    [
        (Answers(1), Answers(2)),
        ({0: "a"}, {0: "b"}),
        ({"a": 1}, {"a": 1, "b": 2}),
        (frozenset({"a"}), frozenset({"b"})),
        (b"a", b"b"),
        (pathlib.Path("/a"), pathlib.Path("/b")),
        (range(3), range(4)),
        (1j, 2j),
        (ml_dtypes.bfloat16(0.5), ml_dtypes.bfloat16(0.25)),
        # Python has no number for it.
        (np.longdouble(1), np.longdouble(2)),
        (np.dtype("<f4"), np.dtype(">f4")),
        (ft.partial(max, 1), ft.partial(max, 2)),
        (ft.partial(max, 1), ft.partial(min, 1)),
        (np.add, np.multiply),
        (np, jnp),
        (list, tuple),
        (eqs.tasks.Split.TRAIN, eqs.tasks.Split.TEST),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_is_no_array_is_compared_whatever_it_is(one, other):
    saved, ours = (json.loads(json.dumps(fixed_parts({"x": x}))) for x in (one, other))
    assert differences(saved, saved) == []
    assert [found.where[0] for found in differences(saved, ours)] == ["x"]


def test_long_settings_are_named_by_their_number():
    short, long = ([{"size": i} for i in range(n)] for n in (9, 90))
    assert differences(short, long, "tasks") == [("tasks", "9 entries", "90 entries")]


def test_a_run_with_arrays_and_modules_in_its_settings_goes_on(tmp_path):
    settings = {"task": eqs.tasks.Quadratic(jnp.ones(3)), "rows": _LONG, "nan": math.nan}
    _run(1, eqs.Checkpoints(tmp_path, settings=settings))
    assert _run(2, eqs.Checkpoints(tmp_path, settings=settings)).state.step == 2
    settings["rows"] = _LONG[::-1]
    with pytest.raises(eqs.CheckpointError, match=r"rows = 'an array of shape \(2000,\)"):
        _run(2, eqs.Checkpoints(tmp_path, settings=settings))


def test_settings_of_plain_values_are_what_older_checkpoints_hold():
    # Those were written by `json.dumps(..., default=str)`.
    plain = {"a": 1, "b": [0.5, None, True], "c": {"d": "e"}, "f": (1, 2)}
    paths = {"g": pathlib.Path("some/where")}
    written = json.loads(json.dumps(plain | paths, default=str))
    assert json.loads(json.dumps(plain_settings(plain | paths))) == written


@pytest.mark.parametrize(
    "settings, message",
    [
        (["a"], r"`settings` must be a dictionary .*; got \['a'\]\."),
        ({3: 4}, "The names in `settings` must be strings; got 3"),
        ({"a": {3: 4}}, r"The names in `settings\['a'\]` must be strings"),
        ({"a": [lambda x: x]}, r"`settings\['a'\]\[0\]` is a function, which cannot be"),
        ({"a": {1, 2}}, "is a set, which cannot be compared"),
        ({"a": np.array([object()])}, "is a ndarray, which cannot be compared"),
    ],
)
def test_settings_that_cannot_be_compared_are_refused(
    as_users_call, tmp_path, settings, message
):
    with pytest.raises(ValueError, match=message):
        eqs.Checkpoints(tmp_path, settings=settings)


def test_a_folder_without_a_whole_checkpoint_is_not_begun_anew(tmp_path):
    checkpoints = eqs.Checkpoints(tmp_path, every=1)
    _run(2, checkpoints)
    for path in tmp_path.glob("*.npz"):
        path.write_text("text")
    with (
        pytest.warns(UserWarning, match="no archive, or not a whole one"),
        pytest.raises(eqs.CheckpointError, match=r"None of the 2 .*`clear`"),
    ):
        _run(2, checkpoints)
    checkpoints.clear()
    assert len(_run(2, checkpoints).history.meta_loss) == 2


def test_a_run_with_another_key_is_refused(tmp_path):
    checkpoints = eqs.Checkpoints(tmp_path)
    _run(1, checkpoints)
    args = Walk(), ESTIMATOR, THETA
    with pytest.raises(eqs.CheckpointError, match="another `key`"):
        eqs.meta_train(*args, steps=2, key=jr.key(1), checkpoints=checkpoints)


def test_two_runs_cannot_share_a_folder(tmp_path):
    checkpoints = eqs.Checkpoints(tmp_path)
    with checkpoints.locked(), pytest.raises(eqs.CheckpointError, match="Another run"):
        _run(1, checkpoints)
    _run(1, checkpoints)


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(eqs.CheckpointError, match="choose another folder"):
        _run(1, eqs.Checkpoints(file / "run"))


def test_a_full_disk_leaves_the_checkpoints_before_it(tmp_path, monkeypatch, unbroken):
    checkpoints = eqs.Checkpoints(tmp_path, every=3)

    def full(path, contents):
        if "09" in path.name:
            raise OSError(28, "No space left on device")
        write(path, contents)

    write = eqs._meta_training._checkpoints.write_npz_atomically
    monkeypatch.setattr(eqs._meta_training._checkpoints, "write_npz_atomically", full)
    with pytest.raises(eqs.CheckpointError, match="No space left"):
        _run(12, checkpoints)
    monkeypatch.undo()
    _assert_same(_run(12, checkpoints), unbroken)


def test_skipped_steps_are_remembered(tmp_path):
    class Broken(eqs.AbstractUnroll):
        def init(self, theta, *, key):
            return jnp.zeros(())

        def step(self, theta, carry, *, key):
            return carry, theta * jnp.nan

    args = Broken(), eqs.FullBackprop(2, 1), jnp.ones(())
    checkpoints = eqs.Checkpoints(tmp_path, every=1)
    settings = {"key": jr.key(0), "checkpoints": checkpoints, "throw": False}
    eqs.meta_train(*args, steps=2, max_skipped=5, **settings)
    result = eqs.meta_train(*args, steps=9, max_skipped=5, **settings)
    assert result.result == eqs.RESULTS.no_meta_gradient
    assert list(result.history.skipped) == [1, 2, 3, 4, 5]
    # Asked for again it has failed still; with more skips allowed it goes on.
    again = eqs.meta_train(*args, steps=9, max_skipped=5, **settings)
    assert again.result == eqs.RESULTS.no_meta_gradient
    assert list(again.history.skipped) == [1, 2, 3, 4, 5]
    more = eqs.meta_train(*args, steps=6, max_skipped=7, **settings)
    assert more.result == eqs.RESULTS.successful
    assert list(more.history.skipped) == [1, 2, 3, 4, 5, 6]


COMMAND = [
    *(sys.executable, "-m", "equistar", "meta-train", "--task", "wine_mlp"),
    *("--optimizer", "hyperparam", "--window", "2", "--pairs", "2"),
    *("--length", "5", "--save-every", "1", "--no-tensorboard", "--output"),
]


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_process_that_is_killed_at_any_instant_goes_on_to_the_same_bits(tmp_path, kills):
    # Every meta-step is written, so that kills hit the writing of checkpoints, too.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs")}
    env = os.environ | {"JAX_PLATFORMS": "cpu"} | cache
    steps = str(10 + 2 * kills)
    run = lambda folder: [*COMMAND, str(tmp_path / folder), "--steps", steps]
    quiet = {"env": env, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    assert subprocess.run(run("whole"), **quiet, timeout=550).returncode == 0
    draw, folder = random.Random(kills), tmp_path / "killed" / "checkpoints"
    newest = lambda: max(folder.glob("checkpoint-*.npz"), default=None)
    for _ in range(kills):
        process, before = subprocess.Popen(run("killed"), **quiet), newest()
        while process.poll() is None and newest() == before:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        # It was alive, with meta-steps to go.
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = subprocess.run(run("killed"), **quiet, timeout=550)
    assert done.returncode == 0, done.stderr.decode()
    for name in ("weights.npz", "metrics.jsonl"):
        one, other = (tmp_path / d / name for d in ("whole", "killed"))
        if name.endswith("npz"):
            one, other = eqs.load(one), eqs.load(other)
            assert eqx.tree_equal(one, other)
        else:
            assert one.read_text() == other.read_text()
