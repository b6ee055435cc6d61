"""Weights files: what is saved comes back, and what is damaged is named."""

import collections
import enum
import errno
import json
import os
import zipfile
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar._evaluation._fingerprint import fingerprint

from .helpers import randomised


class SignMomentum(eqs.AbstractDirection):
    reads = ("momentum",)

    def __call__(self, tensor):
        return jnp.sign(tensor.momentum[-1])


OPTIMIZERS = {
    "star": lambda key: eqs.STAR(key=key),
    "blackbox": lambda key: eqs.Blackbox(key=key, width=8),
    "hyperparam": lambda key: eqs.HyperparamController(key=key),
    "parts": lambda key: eqs.LearnedOptimizer(
        nominal=eqs.NominalTerm(eqs.AggMoDirection(), scale=eqs.LearnedScale(0.1)),
        weight_decay=eqs.WeightDecay(1e-3),
        accumulators={"momentum": eqs.Momentum((0.5, 0.9))},
    ),
    "optax": lambda key: eqs.OptaxOptimizer(
        optax.adam, learning_rate=1e-2, b1=0.8, eps=0.0
    ),
    "partial": lambda key: eqs.OptaxOptimizer(optax.nadamw, learning_rate=1e-2),
    "contrib": lambda key: eqs.OptaxOptimizer(optax.contrib.prodigy, learning_rate=1e-2),
    "safeguarded": lambda key: eqs.Safeguarded(
        eqs.STAR(key=key),
        eqs.OptaxOptimizer(optax.sgd, learning_rate=1e-2),
        eqs.PassedEnergyDecrease(),
    ),
}


@pytest.mark.parametrize(
    "code, advice",
    [
        (errno.ENOSPC, "Make room"),
        (errno.EFBIG, "Make room"),
        (errno.EDQUOT, "Make room"),
        (errno.EACCES, "Choose a folder"),
    ],
)
def test_what_cannot_be_written_says_whether_room_is_missing(
    tmp_path, monkeypatch, code, advice
):
    def refuse(path, contents):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(
        "equistar._serialisation._weights_file.write_npz_atomically", refuse
    )
    with pytest.raises(eqs.WeightsError, match=rf"{os.strerror(code)}\. {advice}"):
        eqs.save(tmp_path / "w.npz", eqs.HyperparamController(key=jr.key(0)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "star.npz"
    eqs.save(path, eqs.STAR(key=jr.key(0)), {"seed": 0})
    return path


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_is_saved_comes_back(tmp_path, name):
    optimizer = randomised(OPTIMIZERS[name](jr.key(0)), jr.key(1))
    eqs.save(tmp_path / "o.npz", optimizer)
    loaded = eqs.load(tmp_path / "o.npz")
    assert type(loaded) is type(optimizer)
    assert jtu.tree_structure(loaded) == jtu.tree_structure(optimizer)
    for a, b in zip(jtu.tree_leaves(loaded), jtu.tree_leaves(optimizer), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_header_says_how_it_was_made(saved):
    header = eqs.load_header(saved)
    assert header["class"] == "STAR"
    assert header["provenance"]["seed"] == 0
    assert header["provenance"]["versions"]["equistar"] == eqs.__version__


def test_a_part_of_ones_own_is_asked_for_by_name(tmp_path):
    path = tmp_path / "o.npz"
    eqs.save(path, eqs.STAR(direction=SignMomentum(), key=jr.key(0)))
    with pytest.raises(eqs.WeightsError, match=r"parts=\(SignMomentum,\)"):
        eqs.load(path)
    loaded: Any = eqs.load(path, parts=(SignMomentum,))
    assert isinstance(loaded.nominal.direction, SignMomentum)


def test_a_field_of_ones_own_part_that_was_renamed_is_no_matter_of_this_library(tmp_path):
    def direction(field):
        class Scaled(eqs.AbstractDirection):
            __annotations__ = {field: float}

            def __call__(self, tensor):
                return getattr(self, field) * tensor.grad

        return Scaled

    old, new = direction("factor"), direction("times")
    eqs.save(tmp_path / "o.npz", eqs.STAR(direction=old(2.0), key=jr.key(0)))  # pyright: ignore
    message = r"version of Scaled \(fields \['factor'\], here \['times'\]\): .* your class"
    with pytest.raises(eqs.WeightsError, match=message) as e:
        eqs.load(tmp_path / "o.npz", parts=new)
    assert "equistar." not in str(e.value)
    assert _direction(eqs.load(tmp_path / "o.npz", parts=old)).factor == 2.0


def _gradient_direction(factor):
    class GradientDirection(eqs.AbstractDirection):
        reads = ()

        def __call__(self, tensor):
            return factor * tensor.grad

    return GradientDirection


def _nominal(direction):
    term = eqs.NominalTerm(direction, scale=eqs.LearnedScale(0.1))
    return eqs.LearnedOptimizer(nominal=term)


def _direction(optimizer: Any) -> Any:
    return optimizer.nominal.direction


def test_a_part_with_the_name_of_a_library_part_is_not_swapped_for_it(tmp_path):
    path, cls = tmp_path / "o.npz", _gradient_direction(2.0)
    eqs.save(path, _nominal(cls()))
    with pytest.raises(eqs.WeightsError, match=r"parts=\(GradientDirection,\)"):
        eqs.load(path)
    assert type(_direction(eqs.load(path, parts=(cls,)))) is cls
    eqs.save(path, _nominal(eqs.GradientDirection()))
    loaded = eqs.load(path, parts=(cls,))
    assert type(_direction(loaded)) is eqs.GradientDirection


def test_a_file_that_does_not_say_whose_classes_it_has_loads_as_it_did(saved, tmp_path):
    def forget(node):
        if isinstance(node, dict):
            return {k: forget(v) for k, v in node.items() if k != "own"}
        return [forget(v) for v in node] if isinstance(node, list) else node

    path, cls = tmp_path / "old.npz", _gradient_direction(2.0)
    eqs.save(tmp_path / "new.npz", _nominal(cls()))
    with np.load(tmp_path / "new.npz") as archive:
        arrays = dict(archive)
    header = forget(json.loads(arrays.pop("header").tobytes()))
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    assert type(_direction(eqs.load(path))) is eqs.GradientDirection
    assert type(_direction(eqs.load(path, parts=cls))) is cls


def test_two_classes_of_one_name_are_refused(tmp_path):
    one, other = _gradient_direction(1.0), _gradient_direction(2.0)
    both = eqs.Safeguarded(_nominal(one()), _nominal(other()), eqs.PassedEnergyDecrease())
    with pytest.raises(eqs.WeightsError, match=r"GradientDirection .* rename one of them"):
        eqs.save(tmp_path / "o.npz", both)


def test_a_truncated_file_is_named(saved, tmp_path):
    whole = saved.read_bytes()
    path = tmp_path / "cut.npz"
    for share in (0.0, 0.1, 0.5, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(eqs.WeightsError, match=r"cut\.npz is"):
            eqs.load(path)


def test_any_flipped_byte_is_found_or_harmless(saved, tmp_path):
    whole = saved.read_bytes()
    path = tmp_path / "flipped.npz"
    for position in np.random.default_rng(0).integers(0, len(whole), 60):
        flipped = bytearray(whole)
        flipped[position] ^= 0x10
        path.write_bytes(flipped)
        try:
            loaded = eqs.load(path)
        except eqs.WeightsError:
            continue
        # Only bytes that hold no content, such as time stamps, may go unnoticed.
        for a, b in zip(
            jtu.tree_leaves(loaded), jtu.tree_leaves(eqs.load(saved)), strict=True
        ):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04\x95pickle", b"PK\x03\x04"])
def test_a_foreign_file_is_named(tmp_path, content):
    path = tmp_path / "foreign.npz"
    path.write_bytes(content)
    with pytest.raises(eqs.WeightsError, match=r"foreign\.npz is"):
        eqs.load(path)


def test_another_npz_is_named(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(eqs.WeightsError, match="not a weights file"):
        eqs.load(tmp_path / "other.npz")


def test_a_pickle_is_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    np.savez(tmp_path / "bomb.npz", header=np.array([Bomb()], dtype=object))
    with pytest.raises(eqs.WeightsError):
        eqs.load(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


def _with_header(saved, path, change):
    """A copy of a weights file with a changed header."""
    with np.load(saved) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["header"].tobytes())
    change(header)
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda h: h.update(format_version=99), "newer than this equistar"),
        (lambda h: h.update(format="other"), "'other'"),
        (lambda h: h.pop("format"), "not a weights file"),
        (lambda h: h.pop("format_version"), "no format version"),
        (lambda h: h.pop("structure"), "do not fit together"),
        (
            lambda h: h["structure"]["fields"].pop("network"),
            "another version of STAR .* version of equistar",
        ),
        (lambda h: h["structure"].update({"class": "os"}), "class 'os'"),
        (lambda h: h["structure"]["fields"].update(network=3), "do not fit together"),
        (lambda h: h.update(structure={"tuple": []}), "does not hold an optimizer"),
        (
            lambda h: h.update(structure={"class": "Momentum", "fields": {}}),
            "another version",
        ),
        (
            lambda h: h["structure"]["fields"].update(network={"array": "array_0"}),
            "do not fit together",
        ),
    ],
)
def test_a_header_that_makes_no_sense_is_named(saved, tmp_path, change, message):
    path = tmp_path / "changed.npz"
    _with_header(saved, path, change)
    with pytest.raises(eqs.WeightsError, match=message):
        eqs.load(path)


def test_weights_that_are_not_finite_are_warned_of(tmp_path):
    star = eqs.STAR(key=jr.key(0))
    broken = eqx.tree_at(lambda s: s.network.biases[0], star, jnp.full(4, jnp.nan))
    eqs.save(tmp_path / "broken.npz", broken, {})
    with pytest.warns(UserWarning, match="not all finite.*take an earlier file"):
        eqs.load(tmp_path / "broken.npz")


def test_weights_of_more_bits_than_jax_reads_are_warned_of(tmp_path):
    eqs.save(tmp_path / "double.npz", eqs.STAR(key=jr.key(0)))
    kept = eqs.load(tmp_path / "double.npz")
    with jax.enable_x64(False), pytest.warns(UserWarning, match="64 bits.*enable_x64"):
        narrow = eqs.load(tmp_path / "double.npz")
    for optimizer, dtype in ((kept, np.float64), (narrow, np.float32)):
        learned = jtu.tree_leaves(eqx.filter(optimizer, eqx.is_array))
        assert all(x.dtype == dtype for x in learned)


def test_bfloat16_weights_come_back(tmp_path):
    narrow = jtu.tree_map(
        lambda x: x.astype(jnp.bfloat16) if eqx.is_inexact_array(x) else x,
        eqs.Blackbox(key=jr.key(0)),
    )
    eqs.save(tmp_path / "narrow.npz", narrow)
    again = eqs.load(tmp_path / "narrow.npz")
    assert eqx.tree_equal(again, narrow)
    assert jtu.tree_leaves(again)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "rate", [np.float32(0.5), np.float16(0.5), np.int64(1), np.array(0.5)]
)
def test_a_rate_that_is_a_number_of_numpy_comes_back_as_a_python_number(tmp_path, rate):
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    scaled = eqs.Scaled(sgd, rate, weight_decay=rate)
    assert eqs.count_learned(scaled) == eqs.count_learned(sgd)
    eqs.save(tmp_path / "scaled.npz", scaled)
    loaded: Any = eqs.load(tmp_path / "scaled.npz")
    assert (loaded.learning_rate, loaded.weight_decay) == (float(rate), float(rate))
    assert type(loaded.learning_rate) is float


@pytest.mark.parametrize("xp", [np, jnp])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int64])
def test_an_array_that_stays_fixed_comes_back_as_it_was(tmp_path, xp, dtype):
    array = xp.asarray(2, dtype)
    scale = eqs.OptaxOptimizer(optax.scale, step_size=eqs.Fixed(array))
    eqs.save(tmp_path / "scale.npz", scale)
    again: Any = eqs.load(tmp_path / "scale.npz")
    assert again == scale and eqx.tree_equal(again, scale)
    assert hash(again.hyperparameters["step_size"]) == hash(eqs.Fixed(array))
    assert fingerprint(again) == fingerprint(scale)
    held = again.hyperparameters["step_size"]()
    assert isinstance(held, np.ndarray) == (xp is np) and held.dtype == dtype


def test_provenance_may_hold_arrays(tmp_path):
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    made = {"meta_loss": np.float32(0.5), "seed": np.int64(3), "losses": jnp.ones(2)}
    eqs.save(tmp_path / "sgd.npz", sgd, made)
    kept = eqs.load_header(tmp_path / "sgd.npz")["provenance"]
    del kept["versions"]
    assert kept == {"meta_loss": 0.5, "seed": 3, "losses": [1.0, 1.0]}
    for bad in (jnp.array(jnp.nan), object()):
        with pytest.raises(eqs.WeightsError, match="JSON can hold"):
            eqs.save(tmp_path / "sgd.npz", sgd, {"meta_loss": bad})


def test_an_array_of_the_other_byte_order_comes_back(tmp_path):
    array = np.array([1.0, 2.0, 3.0], np.dtype(np.float32).newbyteorder())
    held = eqs.OptaxOptimizer(optax.scale, step_size=eqs.Fixed(array))
    eqs.save(tmp_path / "held.npz", held)
    loaded: Any = eqs.load(tmp_path / "held.npz")
    np.testing.assert_array_equal(loaded.hyperparameters["step_size"](), [1.0, 2.0, 3.0])


@pytest.mark.filterwarnings("ignore:.*64 bits")
def test_a_fixed_array_of_numpy_keeps_bits_that_jax_does_not_read(tmp_path):
    rates = eqs.OptaxOptimizer(optax.scale, step_size=np.asarray(2))
    eqs.save(tmp_path / "rates.npz", rates)
    with jax.enable_x64(False):
        assert eqx.tree_equal(eqs.load(tmp_path / "rates.npz"), rates)


def test_a_fixed_array_in_a_file_that_does_not_say_whose_it_is_is_read_as_jax_has_it(
    tmp_path,
):
    def forget(header):
        sizes = header["structure"]["fields"]["hyperparameters"]["dict"]
        del sizes["step_size"]["fields"]["value"]["numpy"]

    scale = eqs.OptaxOptimizer(optax.scale, step_size=np.asarray(2))
    eqs.save(tmp_path / "new.npz", scale)
    _with_header(tmp_path / "new.npz", tmp_path / "old.npz", forget)
    again: Any = eqs.load(tmp_path / "old.npz")
    assert isinstance(again.hyperparameters["step_size"](), jax.Array)


@pytest.mark.parametrize("dtype", [np.complex64, "S4", np.complex128])
def test_weights_that_are_no_real_numbers_are_refused(saved, tmp_path, dtype):
    path = tmp_path / "other.npz"
    with np.load(saved) as archive:
        arrays = dict(archive)
    arrays["array_0"] = arrays["array_0"].astype(dtype)
    np.savez(path, **arrays)
    with pytest.raises(eqs.WeightsError, match=r"array_0 has dtype .* are real num"):
        eqs.load(path)


def test_weights_that_are_whole_numbers_load_as_such(saved, tmp_path):
    path = tmp_path / "whole.npz"
    with np.load(saved) as archive:
        arrays = dict(archive)
    arrays["array_0"] = np.round(arrays["array_0"]).astype(np.int32)
    np.savez(path, **arrays)
    # Strict promotion alone refuses to multiply them by floats.
    with jax.numpy_dtype_promotion("standard"):
        loaded = eqs.load(path)
    assert any(x.dtype == jnp.int32 for x in jtu.tree_leaves(loaded))


def test_complex_weights_are_not_saved(tmp_path):
    turned = eqs.OptaxOptimizer(optax.adam, learning_rate=0.1, b1=0.8)
    turned = eqx.tree_at(
        lambda o: o.hyperparameters["b1"].logit, turned, jnp.array(1j, complex)
    )
    with pytest.raises(eqs.WeightsError, match=r"logit is of complex128, and .* apart"):
        eqs.save(tmp_path / "o.npz", turned)


def test_provenance_that_is_no_dictionary_is_refused(tmp_path, as_users_call):
    wrong: Any = [1, 2]
    with pytest.raises(eqs.WeightsError, match="must be a dictionary"):
        eqs.save(tmp_path / "a.npz", eqs.STAR(key=jr.key(0)), wrong)
    listed: Any = {"versions": "all new"}
    with pytest.raises(eqs.WeightsError, match=r"\['versions'\]` must be a dictionary"):
        eqs.save(tmp_path / "a.npz", eqs.STAR(key=jr.key(0)), listed)


def test_versions_are_added_to_ones_own(tmp_path):
    own: Any = {"versions": {"mine": 1, "equistar": "of another time"}}
    eqs.save(tmp_path / "a.npz", eqs.STAR(key=jr.key(0)), own)
    versions: Any = eqs.load_header(tmp_path / "a.npz")["provenance"]["versions"]
    assert (versions["mine"], versions["equistar"]) == (1, eqs.__version__)


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(eqs.WeightsError, match="is not there"):
        eqs.load(tmp_path / "nothing.npz")
    with pytest.raises(eqs.WeightsError, match="Choose a folder"):
        eqs.save(tmp_path / "no" / "o.npz", eqs.STAR(key=jr.key(0)))


class _Pair(NamedTuple):
    x: float
    y: float


class _Mode(enum.StrEnum):
    SIGN = "sign"


class _Holding(eqs.AbstractDirection):
    held: Any = eqx.field(static=True)

    def __call__(self, tensor):
        return tensor.grad


def _holding(value):
    return eqs.LearnedOptimizer(nominal=eqs.NominalTerm(_Holding(value)))


@pytest.mark.parametrize(
    "value",
    [
        _Pair(1.0, 2.0),
        _Mode.SIGN,
        collections.OrderedDict(a=1.0),
        np.array(["a"]),
        np.array([None]),
        np.ma.array([1.0], mask=[True]),
    ],
    ids=lambda x: type(x).__name__,
)
@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
def test_what_would_come_back_as_something_else_is_not_saved(tmp_path, value):
    with pytest.raises(eqs.WeightsError, match=type(value).__name__):
        eqs.save(tmp_path / "a.npz", _holding(value))
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "value", [float("inf"), float("-inf"), float("nan"), (1, [None]), "bfloat16"]
)
def test_plain_values_come_back_as_they_were(tmp_path, value):
    eqs.save(tmp_path / "a.npz", _holding(value))
    loaded: Any = eqs.load(tmp_path / "a.npz", parts=_Holding)
    held = loaded.nominal.direction.held
    assert type(held) is type(value) and repr(held) == repr(value)


def test_a_prng_key_is_not_saved(tmp_path):
    class Keyed(eqs.AbstractDirection):
        key: Any

        def __call__(self, tensor):
            return tensor.grad

    optimizer = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(Keyed(jr.key(0))))
    with pytest.raises(eqs.WeightsError, match=r"direction\.key is a PRNG key"):
        eqs.save(tmp_path / "a.npz", optimizer)


def test_what_a_file_cannot_hold_is_named_and_the_old_file_stays(saved):
    before = saved.read_bytes()
    bad = eqs.OptaxOptimizer(
        lambda learning_rate: optax.sgd(learning_rate), learning_rate=0.1
    )
    with pytest.raises(eqs.WeightsError, match=r"optimizer\.factory is a function"):
        eqs.save(saved, bad)
    stacked = eqs.Stacked(eqs.STAR(key=jr.key(0)), {"blocks": 1})
    with pytest.raises(eqs.WeightsError, match=r"save its `\.optimizer`"):
        eqs.save(saved, stacked)
    with pytest.raises(eqs.WeightsError, match="Only optimizers"):
        eqs.save(saved, {"a": 1})
    with pytest.raises(eqs.WeightsError, match="JSON"):
        eqs.save(saved, eqs.STAR(key=jr.key(0)), {"x": object()})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_failed_write_leaves_the_old_file_and_no_other(saved, monkeypatch):
    before = saved.read_bytes()

    def full(file, *_, **__):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(eqs.WeightsError, match="No space left"):
        eqs.save(saved, eqs.STAR(key=jr.key(0)))
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_the_file_is_an_ordinary_archive_without_pickles(saved):
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert all(b"|O" not in archive.read(n)[:128] for n in archive.namelist())


def test_an_optimizer_whose_parts_do_not_fit_is_refused_before_it_is_written(tmp_path):
    star = eqs.STAR(key=jr.key(0))
    headless = eqx.tree_at(lambda o: o.network, star, eqs.NoNetwork())
    with pytest.raises(eqs.WeightsError, match="A head reads 4 hidden units"):
        eqs.save(tmp_path / "weights.npz", headless)
    assert not list(tmp_path.iterdir())


class _OfTree(eqs.AbstractOptimizer):
    """An optimizer of one's own, for trees with a leaf `w`."""

    rate: Any

    def init(self, params):
        return ()

    def update(self, grads, state, params, **extra):
        zeros = jtu.tree_map(jnp.zeros_like, params)
        return zeros | {"w": -self.rate * grads["w"]}, ()


class _PerCoordinate(eqs.AbstractOptimizer):
    rates: Any

    def init(self, params):
        return ()

    def update(self, grads, state, params, **extra):
        return -self.rates * grads, ()


def _masked(rate):
    mask = {"w": True, "b": np.False_}
    return eqs.OptaxOptimizer(optax.adamw, learning_rate=rate, weight_decay=0.1, mask=mask)


OF_ONE_TREE = {
    "masked": _masked,
    "own": _OfTree,
    "scaled": lambda rate: eqs.Scaled(_OfTree(rate), rate),
    "guarded": lambda rate: eqs.Safeguarded(
        eqs.STAR(key=jr.key(0)), _masked(rate), eqs.StepBound()
    ),
    "array": lambda rate: eqs.OptaxOptimizer(optax.scale, step_size=np.arange(3)),
}


@pytest.mark.parametrize("name", OF_ONE_TREE)
def test_an_optimizer_for_one_tree_of_parameters_is_saved_and_loaded(tmp_path, name):
    optimizer = OF_ONE_TREE[name](jnp.asarray(0.1))
    params = {"w": jnp.ones(3), "b": jnp.ones(3)}
    optimizer.update(params, optimizer.init(params), params)
    eqs.save(tmp_path / "o.npz", optimizer)
    assert eqx.tree_equal(eqs.load(tmp_path / "o.npz", parts=_OfTree), optimizer)


# Of a batch it cannot be told apart.
def test_an_optimizer_of_ones_own_may_hold_a_number_for_each_parameter(tmp_path):
    eqs.save(tmp_path / "o.npz", _PerCoordinate(jnp.arange(5.0)))
    loaded = eqs.load(tmp_path / "o.npz", parts=(_PerCoordinate,))
    np.testing.assert_array_equal(
        loaded.update(jnp.ones(5), (), jnp.ones(5))[0], -jnp.arange(5.0)
    )


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize(
    "make",
    [
        lambda rate: eqs.OptaxOptimizer(optax.adam, learning_rate=rate, b1=0.9),
        lambda rate: eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1, momentum=rate),
        _masked,
        OF_ONE_TREE["guarded"],
        lambda rate: eqs.Scaled(_OfTree(0.1), rate),
        lambda rate: eqs.Scaled(_masked(0.1), weight_decay=rate),
        lambda rate: eqs.STAR(key=jr.key(0)),
    ],
    ids=["adam", "sgd", "masked", "guarded", "scaled", "decayed", "star"],
)
def test_a_batch_of_optimizers_is_not_saved(tmp_path, make, count):
    rates = jnp.linspace(0.1, 0.2, count)
    for batch in (
        eqx.filter_vmap(make)(rates),
        eqx.filter_vmap(eqx.filter_vmap(make))(jnp.stack([rates, rates])),
    ):
        with pytest.raises(eqs.WeightsError, match="of a batch"):
            eqs.save(tmp_path / "o.npz", batch)
        assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(factory={"optax": "incremental_update"}),
        lambda fields: fields["hyperparameters"]["dict"].update(unheard_of=None),
        lambda fields: fields["hyperparameters"].update(dict={"unheard_of": {"dict": {}}}),
    ],
)
def test_hyperparameters_that_a_factory_does_not_take_are_named(tmp_path, change):
    eqs.save(tmp_path / "o.npz", _masked(0.1))
    path = tmp_path / "changed.npz"
    _with_header(tmp_path / "o.npz", path, lambda h: change(h["structure"]["fields"]))
    with pytest.raises(eqs.WeightsError, match="do not fit together"):
        eqs.load(path)


@pytest.mark.parametrize("field", ["optimizer", "learned", "fallback", "criterion"])
def test_parts_of_another_kind_are_named(tmp_path, field):
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    whole = eqs.Scaled(sgd)
    if field != "optimizer":
        whole = eqs.Safeguarded(sgd, sgd, eqs.StepBound())
    eqs.save(tmp_path / "o.npz", whole)
    path = tmp_path / "changed.npz"
    change = lambda h: h["structure"]["fields"].update({field: 3})
    _with_header(tmp_path / "o.npz", path, change)
    with pytest.raises(eqs.WeightsError, match="do not fit together"):
        eqs.load(path)


def test_a_path_that_is_none_is_named(as_users_call):
    untyped: Any = eqs
    with pytest.raises(eqs.WeightsError, match="`path` must be a path"):
        untyped.save(None, eqs.LearnedOptimizer())
    with pytest.raises(eqs.WeightsError, match="`path` must be a path"):
        untyped.load(None)
    with pytest.raises(ValueError, match="`path` must be a path"):
        untyped.FolderStore(None)


def test_a_function_in_an_optimizer_is_named_with_a_way_to_keep_its_arrays(tmp_path):
    masked = eqs.OptaxOptimizer(optax.adamw, learning_rate=0.1, mask=lambda p: p)
    match = r"mask\.value is a function .*no code.*tree_serialise_leaves"
    with pytest.raises(eqs.WeightsError, match=match):
        eqs.save(tmp_path / "o.npz", masked)
    path = str(tmp_path / "o.eqx")
    eqx.tree_serialise_leaves(path, masked)
    blank = eqs.OptaxOptimizer(optax.adamw, learning_rate=0.2, mask=lambda p: p)
    rate = eqx.tree_deserialise_leaves(path, blank).hyperparameters["learning_rate"]
    assert rate() == masked.hyperparameters["learning_rate"]()


def test_a_folder_and_parts_that_are_no_classes_are_named(tmp_path, as_users_call):
    with pytest.raises(eqs.WeightsError, match=r"is a folder: give .* weights\.npz"):
        eqs.load(tmp_path)
    eqs.save(tmp_path / "a.npz", eqs.LearnedOptimizer())
    assert isinstance(
        eqs.load(tmp_path / "a.npz", parts=SignMomentum), eqs.LearnedOptimizer
    )
    with pytest.raises(eqs.WeightsError, match=r"must be classes.*got 'Mean'"):
        eqs.load(tmp_path / "a.npz", parts=["Mean"])  # pyright: ignore
