import json
import pathlib

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pytest

import equistar as eqs


CASES = sorted(pathlib.Path(__file__).parent.joinpath("data").glob("*.npz"))


def _theta(archive):
    names = [name for name in archive.files if name.startswith("theta/")]
    return {name.removeprefix("theta/"): archive[name] for name in names}


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_trajectory_of_the_released_implementation_is_reproduced(path):
    with np.load(path) as archive:
        config = json.loads(str(archive["config"]))
        optimizer = eqs.interop.from_learned_optimization(
            _theta(archive), cls=config["cls"], **config["kwargs"]
        )
        names = [n.split("/")[1] for n in archive.files if n.startswith("params0/")]
        params = {n: jnp.asarray(archive[f"params0/{n}"], jnp.float64) for n in names}
        optim = eqs.as_optax(optimizer)
        state, update = optim.init(params), jax.jit(optim.update)
        for step in range(1, 13):
            grads = {
                n: jnp.asarray(archive[f"grads/step{step:02d}/{n}"], jnp.float64)
                for n in names
            }
            updates, state = update(grads, state, params)
            params = jtu.tree_map(jnp.add, params, updates)
            for n in names:
                expected = archive[f"params/step{step:02d}/{n}"]
                np.testing.assert_allclose(params[n], expected, rtol=1e-9, err_msg=n)


@pytest.fixture(scope="module")
def theta():
    with np.load(CASES[0]) as archive:
        return _theta(archive)


@pytest.mark.parametrize(
    "cls, kwargs, message",
    [
        ("SomeLOpt", {}, "SomeLOpt"),
        ("MLPNomLOpt", {"selfnormalize_blackbox": True}, "selfnormalize_blackbox"),
        ("MLPNomLOpt", {"nominal_grad_estimator": "Lion"}, "Lion"),
        ("AdafacMLPLOpt", {"hidden_size": 8}, r"nn/w0.*\(39, 8\)"),
        ("AdafacMLPLOpt", {"hidden_layers": 3}, "nn/w3"),
        ("AdafacMLPLOpt", {"concat_weights": False}, "concat_weights"),
        ("AdafacMLPLOpt", {"nominal_stepsize": 1e-3}, "nominal_stepsize"),
        ("AdafacMLPLOpt", {"exp_mult": (1, 2, 3)}, "exp_mult"),
        ("MLPNomLOpt", {"exp_mult": 0.1}, "exp_mult"),
        ("MLPNomLOpt", {}, "nn/w2"),
    ],
)
def test_what_is_not_supported_is_named(theta, cls, kwargs, message):
    with pytest.raises(ValueError, match=message):
        eqs.interop.from_learned_optimization(theta, cls=cls, **kwargs)


def test_a_missing_array_is_named(theta):
    less = {k: v for k, v in theta.items() if k != "nn/b1"}
    with pytest.raises(ValueError, match="nn/b1"):
        eqs.interop.from_learned_optimization(less, cls="AdafacMLPLOpt")


def test_a_non_finite_weight_is_named(theta):
    bad = theta | {"nn/b1": np.full(4, np.nan)}
    with pytest.raises(ValueError, match="nn/b1"):
        eqs.interop.from_learned_optimization(bad, cls="AdafacMLPLOpt")


def test_aggregated_magnitudes_are_shared_over_the_tensor():
    rng = np.random.default_rng(0)
    theta = {
        "nn/w0": rng.normal(size=(39, 4)),
        "nn/b0": rng.normal(size=4),
        "nn/w1": rng.normal(size=(4, 4)),
        "nn/b1": rng.normal(size=4),
        "nn/w2": rng.normal(size=(4, 4)),
        "nn/b2": rng.normal(size=4),
        "momentum_decays": np.zeros(3),
        "rms_decays": np.zeros(1),
        "adafactor_decays": np.zeros(3),
    }
    optimizer = eqs.interop.from_learned_optimization(
        theta,
        cls="MLPNomLOpt",
        nominal_stepsize=1.0,
        step_mult=0.0,
        exp_mult=(1.0, 1.0, 1.0),
        nominal_controller=True,
        nominal_grad_estimator="SGD",
        aggregate_nom_magnitude=True,
    )
    grad = jnp.asarray(rng.normal(size=(3, 4)))
    update, _ = optimizer.update(grad, optimizer.init(grad), grad)
    ratio = np.asarray(update / grad)
    # One factor for the whole tensor.
    np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-12)
