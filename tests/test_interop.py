"""Weights go to other implementations' layouts and come back the same."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest
import safetensors.numpy

import equistar as eqs
from equistar import interop
from equistar._cli._convert import Convert
from equistar._cli._output import CommandError

from .helpers import randomised


KEY = jr.key(0)
DECAY = eqs.WeightDecay(1e-2)
LEARNED_DECAY = eqs.WeightDecay(
    1e-2, eqs.MagnitudeController(4, 0.2, eqs.PerTensor(), key=jr.key(5))
)
VARIANTS = {
    "blackbox": eqs.Blackbox(key=KEY),
    "blackbox_wide": eqs.Blackbox(key=KEY, width=7, magnitude_scale=0.1),
    "blackbox_decay": eqs.Blackbox(key=KEY, weight_decay=DECAY),
    "blackbox_preconditioned": eqs.Blackbox(
        key=KEY, preconditioner=eqs.EMAPreconditioner()
    ),
    "star": eqs.STAR(key=KEY, magnitude_scale=0.1, weight_decay=LEARNED_DECAY),
    "star_shared": eqs.STAR(key=KEY, aggregation=eqs.PerTensor(), magnitude_scale=0.2),
    "star_momentum": eqs.STAR(key=KEY, direction=eqs.MomentumDirection()),
    "star_learned_scale": eqs.STAR(key=KEY, nominal_scale=eqs.LearnedScale(2e-3)),
    "star_bare": eqx.tree_at(
        lambda s: (s.nominal, s.blackbox.magnitude),
        eqs.STAR(key=KEY),
        (eqs.NominalTerm(), eqs.NoMagnitudeController()),
    ),
    "hyperparam": eqs.HyperparamController(key=KEY, magnitude_scale=0.1),
}


def _random(name):
    return randomised(VARIANTS[name], jr.key(3))


def _trajectory(optimizer, dtype=jnp.float64):
    params = jnp.ones((3, 5), dtype)
    state, out = optimizer.init(params), []
    update = eqx.filter_jit(lambda g, s, p: optimizer.update(g, s, p))
    for i in range(4):
        ripple = jnp.arange(15, dtype=dtype).reshape(3, 5)
        updates, state = update(jnp.sin(params * 3 + i + ripple), state, params)
        params = params + updates
        out.append(np.ravel(updates))
    return np.stack(out)


@pytest.mark.parametrize("name", VARIANTS)
def test_the_released_layout_comes_back_with_the_same_updates(name):
    optimizer = _random(name)
    theta, cls, kwargs = interop.to_learned_optimization(optimizer)
    assert cls == (
        "AdafacMLPLOpt" if name in ("blackbox", "blackbox_wide") else "MLPNomLOpt"
    )
    heads = 2 if cls == "AdafacMLPLOpt" else 4
    assert theta["nn/w2"].shape == (kwargs["hidden_size"], heads)
    back = interop.from_learned_optimization(theta, cls=cls, **kwargs)
    expected = _trajectory(optimizer)
    assert np.all(np.any(expected != 0, axis=1))
    np.testing.assert_allclose(_trajectory(back), expected, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize("depth, width", [(1, 3), (2, 32), (3, 4)])
def test_the_meta_mlp_layout_comes_back_with_the_same_updates(tmp_path, depth, width):
    optimizer = eqs.LearnedOptimizer(
        features=eqs.AdafactorFeatures(),
        network=eqs.BlackboxMLP(39, width, depth, key=KEY),
        blackbox=eqs.BlackboxTerm(
            width, preconditioner=eqs.NoPreconditioner(), scale=0.02, key=KEY
        ),
    )
    optimizer = randomised(optimizer, jr.key(1))
    path = tmp_path / "weights.safetensors"
    interop.save_meta_mlp(path, optimizer)
    arrays = safetensors.numpy.load_file(path)
    names = ["input", *(f"linear_{i}" for i in range(depth - 1)), "output"]
    kinds = ("weight", "bias")
    assert arrays.keys() == {f"network.{n}.{kind}" for n in names for kind in kinds}
    assert arrays["network.input.weight"].shape == (width, 39)
    assert arrays["network.output.weight"].shape == (2, width)
    # The magnitude head that the optimizer lacks.
    assert not arrays["network.output.weight"][1].any()
    # The file is of float32.
    expected = _trajectory(optimizer)
    close = {"rtol": 1e-4, "atol": 1e-5 * np.abs(expected).max()}
    np.testing.assert_allclose(_trajectory(interop.load_meta_mlp(path)), expected, **close)


def test_a_published_file_has_the_initial_decays_and_the_papers_scales(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"input": (32, 39), "linear_0": (32, 32), "output": (2, 32)}
    arrays = {
        f"network.{name}.weight": rng.normal(size=shape).astype(np.float32) / 6
        for name, shape in shapes.items()
    }
    for name, shape in shapes.items():
        bias = rng.normal(size=shape[0]).astype(np.float32) / 6
        arrays[f"network.{name}.bias"] = bias
    path = tmp_path / "small_fc_lopt.safetensors"
    safetensors.numpy.save_file(arrays, path)
    theta = {f"nn/w{i}": arrays[f"network.{n}.weight"].T for i, n in enumerate(shapes)}
    theta |= {f"nn/b{i}": arrays[f"network.{n}.bias"] for i, n in enumerate(shapes)}
    theta |= {
        "momentum_decays": np.zeros(3),
        "rms_decays": np.zeros(1),
        "adafactor_decays": np.zeros(3),
    }
    scales = {"exp_mult": 1e-3, "step_mult": 1e-3, "hidden_size": 32}
    expected = interop.from_learned_optimization(theta, cls="AdafacMLPLOpt", **scales)
    assert eqx.tree_equal(interop.load_meta_mlp(path), expected)
    larger = interop.load_meta_mlp(path, step_mult=2e-3)
    blackbox: Any = larger.blackbox
    assert blackbox.scale() == 2e-3
    # The decays of implementations that keep them in their code.
    decays = {
        "momentum_decays": (0.15, 0.14, 0.07),
        "rms_decays": (0.01,),
        "adafactor_decays": (0.19, -0.11, -0.06),
    }
    learned = interop.from_learned_optimization(
        theta | {name: np.array(value) for name, value in decays.items()},
        cls="AdafacMLPLOpt",
        **scales,
    )
    assert eqx.tree_equal(interop.load_meta_mlp(path, **decays), learned)
    # And by the command, into a file of ours.
    assert Convert(path, tmp_path / "ours.npz").run() == 0
    assert eqx.tree_equal(eqs.load(tmp_path / "ours.npz"), expected)
    with pytest.raises(CommandError, match="--overwrite"):
        Convert(path, tmp_path / "ours.npz").run()
    assert Convert(tmp_path / "ours.npz", tmp_path / "again.safetensors").run() == 0
    again = safetensors.numpy.load_file(tmp_path / "again.safetensors")
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)
    with pytest.raises(CommandError, match="must end in"):
        Convert(path, tmp_path / "ours.pt").run()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda a: a.pop("network.input.bias"), "not in the MetaMLP layout"),
        (lambda a: a.update(more=np.zeros(1, np.float32)), "not in the MetaMLP layout"),
        (
            lambda a: a.update({"network.input.weight": np.zeros((4, 38), np.float32)}),
            r"network.input.weight must be .* \(4, 39\)",
        ),
        (lambda a: a["network.output.bias"].fill(np.nan), "not finite"),
        (lambda a: a.update({"network.output.bias": np.zeros(2, int)}), "floating-point"),
    ],
)
def test_a_file_that_is_not_in_the_layout_is_refused(tmp_path, change, message):
    path = tmp_path / "weights.safetensors"
    interop.save_meta_mlp(path, VARIANTS["blackbox"])
    arrays = safetensors.numpy.load_file(path)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)
    with pytest.raises(ValueError, match=message):
        interop.load_meta_mlp(path)


def test_a_damaged_or_missing_file_is_one_sentence(tmp_path, monkeypatch):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(eqs.WeightsError, match="There is no file"):
        interop.load_meta_mlp(path)
    interop.save_meta_mlp(path, VARIANTS["blackbox"])
    with pytest.raises(ValueError, match="`step_mult` must be finite and at least 0"):
        interop.load_meta_mlp(path, step_mult=-1.0)
    arrays = safetensors.numpy.load_file(path)
    wrong = '{"exp_mult": "x"}', '{"step_mult": [1, 2]}', '{"rms_decays": null}'
    for metadata in "{not json", "3", "[1, 2]", *wrong:
        safetensors.numpy.save_file(arrays, path, {"equistar": metadata})
        with pytest.raises(eqs.WeightsError, match="equistar did not write"):
            interop.load_meta_mlp(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(eqs.WeightsError, match="not a whole safetensors file"):
        interop.load_meta_mlp(path)

    # Root may read whatever the permissions are.
    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(eqs.WeightsError, match="cannot be read: check its permissions"):
        interop.load_meta_mlp(path)


def test_theta_is_taken_and_given_as_checkpoints_nest_it():
    released = interop.to_learned_optimization(VARIANTS["star"])
    expected = interop.from_learned_optimization(
        released.theta, cls=released.cls, **released.kwargs
    )
    # Haiku's parameters of no module are those of "~".
    assert set(released.nested) == {"nn", *(k for k in released.theta if "/" not in k)}
    assert set(released.nested["nn"]["~"]) == {f"{k}{i}" for k in "wb" for i in range(3)}
    for nested in (
        released.nested,
        released.nested | {"nn": released.nested["nn"]["~"]},
        {k.replace("nn/", "nn/~/"): v for k, v in released.theta.items()},
    ):
        ours = interop.from_learned_optimization(
            nested, cls=released.cls, **released.kwargs
        )
        assert eqx.tree_equal(ours, expected)


def test_negative_scales_come_back_and_what_is_not_finite_is_not_written(tmp_path):
    path = tmp_path / "weights.safetensors"
    interop.save_meta_mlp(path, eqs.Blackbox(key=KEY, blackbox_scale=-0.1))
    blackbox: Any = interop.load_meta_mlp(path).blackbox
    assert blackbox.scale() == -0.1
    bad = jtu.tree_map(lambda x: jnp.nan * x, VARIANTS["blackbox"])
    with pytest.raises(ValueError, match="not all finite"):
        interop.save_meta_mlp(path, bad)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"step_mult": 1e40}, "`step_mult` must be a finite number in float32"),
        ({"step_mult": None}, "`step_mult` must be a finite number"),
        ({"exp_mult": (1.0, "a", 0.0)}, "`exp_mult` must be finite"),
        ({"hidden_layers": 2.0}, "`hidden_layers` must be a positive integer"),
        ({"normalize_blackbox": "False"}, "`normalize_blackbox` must be True or False"),
        (
            {"nominal_grad_estimator": ["Adam"]},
            r"=\['Adam'\] is not supported: use one",
        ),
    ],
)
def test_arguments_that_make_no_sense_are_named(settings, message):
    theta, cls, kwargs = interop.to_learned_optimization(VARIANTS["star"])
    with pytest.raises(ValueError, match=message):
        interop.from_learned_optimization(theta, cls=cls, **(kwargs | settings))


@pytest.mark.parametrize("wrong", [None, "star", eqs.Scaled(eqs.STAR(key=KEY), 0.1)])
def test_what_is_no_learned_optimizer_has_no_released_layout(wrong, as_users_call):
    with pytest.raises(ValueError, match="Only a learned optimizer itself"):
        interop.to_learned_optimization(wrong)


def test_a_scale_that_is_no_number_is_named(tmp_path, as_users_call):
    path = tmp_path / "weights.safetensors"
    interop.save_meta_mlp(path, VARIANTS["blackbox"])
    wrong: Any = "a"
    with pytest.raises(ValueError, match="`exp_mult` must be one number"):
        interop.load_meta_mlp(path, exp_mult=wrong)


def test_arrays_that_are_none_are_named(tmp_path, as_users_call):
    theta, cls, kwargs = interop.to_learned_optimization(VARIANTS["blackbox"])
    ragged = theta | {"nn/b0": [[1.0], [1.0, 2.0]]}
    with pytest.raises(
        ValueError, match=r"theta\['nn/b0'\] must be an array of shape \(4,\)"
    ):
        interop.from_learned_optimization(ragged, cls=cls, **kwargs)
    path: Any = tmp_path / "weights.safetensors"
    interop.save_meta_mlp(path, VARIANTS["blackbox"])
    for wrong, message in (
        ("abc", r"`momentum_decays` must have shape \(3,\); got \(\)"),
        (("a", "b", "c"), r"`momentum_decays` must be real numbers; got \('a', "),
        (([1.0], 2.0, 3.0), r"`momentum_decays` must be an array of shape \(3,\)"),
    ):
        decays: Any = wrong
        with pytest.raises(ValueError, match=message):
            interop.load_meta_mlp(path, momentum_decays=decays)
    learned = interop.load_meta_mlp(path, momentum_decays=(0, 1, 0)).accumulators
    assert learned["momentum"].offsets.tolist() == [0, 1, 0]  # pyright: ignore
    nowhere: Any = None
    with pytest.raises(ValueError, match="`path` must be a path"):
        interop.save_meta_mlp(nowhere, VARIANTS["blackbox"])


def test_a_folder_that_is_not_there_is_named_with_the_file(tmp_path):
    path = tmp_path / "no" / "weights.safetensors"
    message = r"Cannot write .*weights\.safetensors: No such"
    with pytest.raises(eqs.WeightsError, match=message):
        interop.save_meta_mlp(path, VARIANTS["blackbox"])


def test_a_batch_of_optimizers_is_named_as_such(tmp_path):
    several = jtu.tree_map(lambda x: jnp.stack([x, x]), VARIANTS["blackbox"])
    with pytest.raises(ValueError, match=r"several optimizers in one.* the first as"):
        interop.to_learned_optimization(several)
    with pytest.raises(ValueError, match="several optimizers in one"):
        interop.save_meta_mlp(tmp_path / "a.safetensors", several)
    first = jtu.tree_map(lambda x: x[0], several)
    assert interop.to_learned_optimization(first).cls == "AdafacMLPLOpt"


def test_theta_that_is_no_mapping_is_refused(as_users_call):
    wrong: Any = []
    with pytest.raises(ValueError, match="must be arrays by name"):
        interop.from_learned_optimization(wrong, cls="AdafacMLPLOpt")


class _Sign(eqs.AbstractDirection):
    reads = ()

    def __call__(self, tensor):
        return jnp.sign(tensor.grad)


def _with_momenta(*decays):
    bank = VARIANTS["star"].accumulators | {"momentum": eqs.Momentum(decays)}
    return eqx.tree_at(lambda s: s.accumulators, VARIANTS["star"], bank)


# Of two momenta and two factors, with a network for so many inputs.
_OF_TWO = eqs.LearnedOptimizer(
    features=eqs.AdafactorFeatures(),
    network=eqs.BlackboxMLP(31, key=KEY),
    blackbox=eqs.BlackboxTerm(key=KEY),
    accumulators={
        "momentum": eqs.Momentum((0.9, 0.99)),
        "second_moment": eqs.SecondMoment(),
        "factored": eqs.FactoredSecondMoment((0.9, 0.99)),
    },
)


@pytest.mark.parametrize(
    "optimizer, message",
    [
        (eqs.LearnedOptimizer(nominal=eqs.NominalTerm()), "NoFeatures"),
        (eqs.STAR(key=KEY, direction=_Sign()), "_Sign"),
        (_with_momenta(0.8, 0.99, 0.999), "'momentum' has no counterpart"),
        (_OF_TWO, "'momentum' has no counterpart"),
        (
            jtu.tree_map(lambda x: x * jnp.nan, VARIANTS["star"]),
            "weights are not all finite",
        ),
    ],
)
def test_a_part_without_a_counterpart_is_named(optimizer, message):
    with pytest.raises(ValueError, match=message):
        interop.to_learned_optimization(optimizer)


def test_the_meta_mlp_layout_holds_a_blackbox_alone(tmp_path):
    with pytest.raises(ValueError, match="a blackbox term alone"):
        interop.save_meta_mlp(tmp_path / "star.safetensors", VARIANTS["star"])


# Each a part of the library with another rule.
class _Capped(eqs.EMAPreconditioner):
    def __call__(self, tensor):
        return jnp.minimum(super().__call__(tensor), 2)


class _Rounded(eqs.BlackboxMLP):
    def __call__(self, inputs, scales):
        return tuple(jnp.tanh(h) for h in super().__call__(inputs, scales))


# A type checker takes it for a dataclass.
_rounded: Any = _Rounded


class _Halved(eqs.PerTensor):
    pass


class _Later(eqs.NoBiasCorrection):
    pass


@pytest.mark.parametrize(
    "where, part",
    [
        (lambda s: s.blackbox.preconditioner, _Capped()),
        (lambda s: s.network, _rounded(39, 4, 2, key=KEY)),
        (lambda s: s.blackbox.magnitude.aggregation, _Halved()),
        (lambda s: s.accumulators["momentum"].correction, _Later()),
    ],
    ids=["preconditioner", "network", "aggregation", "correction"],
)
def test_what_derives_from_a_part_is_not_written_as_that_part(where, part):
    changed = eqx.tree_at(where, VARIANTS["star"], part)
    with pytest.raises(ValueError, match=f"{type(part).__name__} has no counterpart"):
        interop.to_learned_optimization(changed)
