"""Joint spectra where they are known exactly, and what optimizers are invariant under."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import equistar as eqs
from equistar.analysis import joint_spectrum, spectrum_along_training

from .helpers import randomised


# Enough curvatures that the iteration runs, with a few leading ones well apart.
CURVATURE = jnp.concatenate([jnp.array([2.0, 1.6, 1.3]), jnp.linspace(0.9, 1.1, 150)])
TASK = eqs.tasks.Quadratic(CURVATURE, noise=0.1)


def _state(task, optimizer, steps=3):
    state = eqs.train_init(task, optimizer, key=jr.key(0))
    for n in range(steps):
        state, _ = eqs.train_step(task, optimizer, state, key=jr.key(n))
    return state


def _spectrum(optimizer, task=TASK, number=4, **options):
    state = _state(task, optimizer)
    return joint_spectrum(task, optimizer, state, number=number, key=jr.key(9), **options)


def _leading(values, number):
    return np.asarray(values)[np.argsort(-np.abs(values))][:number]


@pytest.mark.parametrize("steps", [[0.5, 1.7], 3, [], [[0, 1]], [2, 1], [-1, 2]])
def test_steps_that_are_no_increasing_whole_numbers_are_refused(as_users_call, steps):
    sgd: Any = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    with pytest.raises(ValueError, match="`steps` must be a list of increasing whole numb"):
        spectrum_along_training(TASK, sgd, steps, key=jr.key(0))


def test_steps_beyond_32_bits_are_refused():
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"`steps` must be below 2\*\*31; got 3000000000"):
        spectrum_along_training(TASK, sgd, [0, 3_000_000_000], key=jr.key(0))


def test_a_state_of_another_optimizer_or_task_is_refused(as_users_call):
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    adam = eqs.OptaxOptimizer(optax.adam, learning_rate=0.1)
    smaller = eqs.tasks.Quadratic(jnp.ones(3))
    refused: Any = lambda task, state: joint_spectrum(task, sgd, state, key=jr.key(0))
    with pytest.raises(ValueError, match=r"`state\.opt_state` is not of this task and opt"):
        refused(TASK, _state(TASK, adam))
    with pytest.raises(ValueError, match=r"`state\.params` is not of this task and opti"):
        refused(smaller, _state(TASK, sgd))
    with pytest.raises(ValueError, match="`state` must be what `train_init` or"):
        refused(TASK, jnp.ones(3))


def test_a_step_that_ends_all_directions_has_the_spectrum_zero():
    # 1 - 1 * 1, of more directions than are computed densely.
    task = eqs.tasks.Quadratic(jnp.ones(150))
    spectrum = _spectrum(eqs.OptaxOptimizer(optax.sgd, learning_rate=1.0), task)
    assert spectrum.converged and np.all(spectrum.eigenvalues == 0)
    # Two are left: of the others nothing is known but that they are zero to rounding.
    task = eqs.tasks.Quadratic(jnp.ones(150).at[:2].set(jnp.array([0.5, 0.25])))
    spectrum = _spectrum(eqs.OptaxOptimizer(optax.sgd, learning_rate=1.0), task)
    assert spectrum.converged
    np.testing.assert_allclose(np.abs(spectrum.eigenvalues[:2]), [0.75, 0.5], rtol=1e-9)
    assert np.all(np.abs(spectrum.eigenvalues[2:]) < 1e-12)


def test_gradient_descents_spectrum_is_that_of_one_minus_the_step_times_the_hessian():
    spectrum = _spectrum(eqs.OptaxOptimizer(optax.sgd, learning_rate=1.2), number=3)
    expected = _leading(1 - 1.2 * CURVATURE, 3)
    np.testing.assert_allclose(spectrum.eigenvalues, expected, rtol=1e-6)
    np.testing.assert_allclose(spectrum.radius, 1.4, rtol=1e-6)
    assert spectrum.unstable == 1 and spectrum.converged
    assert np.all(spectrum.residuals < 1e-4)
    # There is no state.
    np.testing.assert_allclose(spectrum.params_share, 1)


# Three curvatures beyond what the step size bears, and a bulk of one magnitude.
WILD = jnp.concatenate([jnp.array([2.0, 1.95, 1.9]), jnp.linspace(0.9, 1.1, 150)])


def _companions(curvature, rate, decay, weight, preconditioner: Any = 1.0):
    """The eigenvalues of m' = decay m + weight g, phi' = phi - rate preconditioner m'."""
    rate = rate * preconditioner * np.ones(len(curvature))
    blocks = [
        [[1 - r * weight * h, -r * decay], [weight * h, decay]]
        for r, h in zip(rate, np.asarray(curvature), strict=True)
    ]
    return np.linalg.eigvals(np.array(blocks)).ravel()


@pytest.mark.parametrize("average", [False, True], ids=["heavy ball", "average"])
def test_momentums_spectrum_is_that_of_the_companion_matrix(average):
    decay = 0.8
    if average:
        weight, rate = 1 - decay, 1.95 / (1 - decay)
        transform = lambda learning_rate: optax.chain(
            optax.ema(decay, debias=False), optax.scale(-learning_rate)
        )
    else:
        weight, rate = 1.0, 1.95
        transform = lambda learning_rate: optax.sgd(learning_rate, decay)
    optimizer = eqs.OptaxOptimizer(transform, learning_rate=rate)
    spectrum = _spectrum(optimizer, eqs.tasks.Quadratic(WILD), number=3)
    expected = _leading(_companions(WILD, rate, decay, weight), 3)
    np.testing.assert_allclose(spectrum.eigenvalues, expected, rtol=1e-5)
    assert spectrum.unstable == 3
    margin = eqs.analysis.momentum_margin if average else eqs.analysis.heavy_ball_margin
    exact = margin(jnp.diag(WILD[:5]), rate, decay).exact
    np.testing.assert_allclose(1 - spectrum.radius, exact, rtol=1e-5)


def test_adam_with_a_frozen_preconditioner_is_preconditioned_momentum():
    decay, rate, n = 0.5, 0.9, 6
    curvature = jnp.linspace(0.5, 3.0, n)
    preconditioner = 1 / (jnp.sqrt(jnp.linspace(1.0, 4.0, n)) + 1e-8)
    frozen = optax.stateless(lambda u, p: jtu.tree_map(lambda x: x * preconditioner, u))
    transform = lambda learning_rate: optax.chain(
        optax.ema(decay, debias=False), frozen, optax.scale(-learning_rate)
    )
    optimizer = eqs.OptaxOptimizer(transform, learning_rate=rate)
    task = eqs.tasks.Quadratic(curvature)
    spectrum = _spectrum(optimizer, task, number=2 * n)
    expected = _companions(curvature, rate, decay, 1 - decay, np.asarray(preconditioner))
    np.testing.assert_allclose(
        np.sort_complex(spectrum.eigenvalues), np.sort_complex(expected), rtol=1e-6
    )


def test_adams_spectrum_is_that_of_its_dense_jacobian():
    optimizer = eqs.OptaxOptimizer(optax.adam, learning_rate=0.1)
    state = _state(TASK, optimizer)
    spectrum = joint_spectrum(
        TASK, optimizer, state, number=3, tolerance=1e-8, key=jr.key(9)
    )
    dense = np.linalg.eigvals(_dense(TASK, optimizer, state, jr.key(9)))
    np.testing.assert_allclose(
        np.abs(spectrum.eigenvalues), np.sort(np.abs(dense))[::-1][:3], rtol=1e-5
    )


def _dense(task, optimizer, state, key, batches=1):
    arrays, rest = eqx.partition(state, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(arrays)
    keys = [jr.split(key, batches)[i] for i in range(batches)]

    def step(flat):
        state = eqx.combine(unravel(flat), rest)
        loss = lambda p: sum(task.loss(p, key=k) for k in keys) / batches
        updates, opt_state = optimizer.update(
            jax.grad(loss)(state.params), state.opt_state, state.params
        )
        params = jtu.tree_map(jnp.add, state.params, updates)
        after = eqs.TrainState(params, opt_state)
        return ravel_pytree(eqx.filter(after, eqx.is_inexact_array))[0]

    return np.asarray(jax.jit(jax.jacfwd(step))(flat))


def test_a_weight_without_gradient_keeps_its_eigenvalue_of_one_under_adam():
    # Its second moment is exactly zero, where the root has no derivative.
    task = eqs.tasks.Quadratic(jnp.array([1.0, 0.0]))
    optimizer = eqs.OptaxOptimizer(optax.adam, learning_rate=0.1)
    spectrum = _spectrum(optimizer, task, number=6)
    assert np.all(np.isfinite(spectrum.eigenvalues))
    assert np.sum(np.abs(spectrum.eigenvalues - 1) < 1e-9) >= 1


def test_stars_spectrum_on_a_network_is_that_of_its_dense_jacobian():
    task = eqs.tasks.Classification(
        eqs.tasks.dataset_from_arrays(
            np.asarray(jr.normal(jr.key(0), (60, 3))), np.arange(60) % 2
        ),
        eqs.tasks.MLP((3,)),
        batch_size=8,
    )
    optimizer = randomised(eqs.STAR(key=jr.key(0)), jr.key(1), 0.1)
    state = _state(task, optimizer, steps=5)
    spectrum = joint_spectrum(
        task, optimizer, state, number=5, batches=2, tolerance=1e-8, key=jr.key(3)
    )
    dense = np.linalg.eigvals(_dense(task, optimizer, state, jr.key(3), batches=2))
    np.testing.assert_allclose(
        np.abs(spectrum.eigenvalues), np.sort(np.abs(dense))[::-1][:5], rtol=1e-4
    )
    assert spectrum.products > 5 and spectrum.cost > 0


def test_eigenvalues_of_one_magnitude_are_estimated_and_not_called_converged(monkeypatch):
    # Under momentum b all eigenvalues of these curvatures have magnitude sqrt(b).
    monkeypatch.setattr("equistar.analysis._spectrum._DENSE", 10)
    task = eqs.tasks.Quadratic(jnp.linspace(0.2, 1.7, 70))
    optimizer = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.9, momentum=0.8)
    state = eqs.train_init(task, optimizer, key=jr.key(0))
    spectrum = joint_spectrum(task, optimizer, state, number=4, key=jr.key(1))
    assert len(spectrum.eigenvalues) == 4 and not spectrum.converged
    assert spectrum.radius == pytest.approx(np.sqrt(0.8), rel=0.02)
    monkeypatch.undo()
    spectrum = joint_spectrum(task, optimizer, state, number=4, key=jr.key(1))
    assert spectrum.converged and spectrum.radius == pytest.approx(np.sqrt(0.8), rel=1e-5)


def test_the_share_of_a_direction_says_whether_params_or_state_are_unstable():
    # Momentum that grows by itself, and does not reach the parameters: rate zero.
    runaway = lambda learning_rate: optax.chain(
        optax.trace(decay=1.5), optax.scale(-learning_rate)
    )
    optimizer = eqs.OptaxOptimizer(runaway, learning_rate=eqs.Fixed(0.0))
    spectrum = _spectrum(optimizer, eqs.tasks.Quadratic(jnp.array([1.0, 0.5])))
    np.testing.assert_allclose(np.abs(spectrum.eigenvalues), [1.5, 1.5, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(spectrum.params_share[:2], 0, atol=1e-6)
    assert spectrum.unstable == 2


def test_directions_without_curvature_are_not_unstable():
    task = eqs.tasks.Quadratic(jnp.array([1.0, 0.0]))
    descent = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.5)
    found = joint_spectrum(task, descent, _state(task, descent), key=jr.key(0))
    assert found.unstable == 0 and found.radius == 1
    one = dataclasses.replace(found, eigenvalues=found.eigenvalues * (1 + 1e-8))
    assert one.radius > 1 and one.unstable == 0


def test_the_spectrum_along_training_stops_where_training_diverges():
    task = eqs.tasks.Quadratic(jnp.array([1.0, 0.5]))
    stable = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.5)
    spectra = spectrum_along_training(task, stable, [0, 5, 50], key=jr.key(0))
    np.testing.assert_allclose([s.radius for s in spectra], 0.75, rtol=1e-6)
    wild = eqs.OptaxOptimizer(optax.sgd, learning_rate=1e3)
    # Growing by 999 a step overflows float64 before step 200.
    spectra = spectrum_along_training(task, wild, [0, 5, 200, 300], key=jr.key(0))
    assert len(spectra) == 2 and spectra[0].unstable == 2
    # Wherever it is looked at: a state may be finite still where its update is not.
    for last in range(100, 106):
        found = spectrum_along_training(task, wild, [0, last], key=jr.key(0))
        assert len(found) in (1, 2)
    with pytest.raises(ValueError, match="increasing"):
        spectrum_along_training(task, stable, [5, 5], key=jr.key(0))
    with pytest.raises(ValueError, match="at least 1"):
        joint_spectrum(task, stable, _state(task, stable), number=0, key=jr.key(0))


# Invariances.


@pytest.fixture(scope="module")
def measured():
    sign = lambda learning_rate: optax.sign_sgd(learning_rate)
    optimizers = {
        "sgd": eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1),
        "sign": eqs.OptaxOptimizer(sign, learning_rate=0.1),
        "adam": eqs.OptaxOptimizer(optax.adam, learning_rate=0.1),
        "adamw": eqs.OptaxOptimizer(
            optax.adamw, learning_rate=0.1, weight_decay=eqs.Fixed(0.1)
        ),
        "STAR": randomised(eqs.STAR(key=jr.key(0)), jr.key(1), 0.1),
    }
    return {
        name: eqs.analysis.invariances(o, trials=100, key=jr.key(0))
        for name, o in optimizers.items()
    }


KNOWN = {
    # Gradient descent multiplies the update by 100 with the gradient, a difference of 99.
    "sgd": dict(fixed_point=0, translation=0, loss_scale=99, element_permutation=0),
    "sign": dict(fixed_point=0, translation=0, loss_scale=0, element_permutation=0),
    "adam": dict(fixed_point=0, translation=0, loss_scale=0, element_permutation=0),
    "adamw": dict(loss_scale=0, element_permutation=0, row_permutation=0),
    "STAR": dict(row_permutation=0, leaf_order=0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_invariances_are_found(measured, name):
    for prop, value in KNOWN[name].items():
        # eps of Adam and of STAR's normaliser break scale invariance by a little.
        np.testing.assert_allclose(
            getattr(measured[name], prop), value, atol=1e-5, rtol=1e-6, err_msg=prop
        )


def test_known_dependences_are_found(measured):
    # Decay pulls to the origin; factored moments know rows from columns.
    assert measured["adamw"].translation > 0.01
    assert measured["adamw"].fixed_point > 0.01
    assert measured["STAR"].element_permutation > 1e-3
    # Newton's method alone would follow a change of units.
    assert all(m.coordinate_scale > 0.1 for m in measured.values())


def test_the_descent_rate_is_that_of_the_method(measured):
    assert measured["sgd"].descent_rate == 1
    assert measured["sign"].descent_rate == 1
    # A tenth of the last gradient goes into Adam's momentum: nearly always downhill.
    assert 0.9 < measured["adam"].descent_rate <= 1
    uphill = eqs.OptaxOptimizer(optax.sgd, learning_rate=eqs.Fixed(-0.1))
    found = eqs.analysis.invariances(uphill, trials=20, key=jr.key(0))
    assert found.descent_rate == 0


def test_invariances_are_a_table(measured):
    text = str(measured["adam"])
    assert "loss scale" in text and "descent rate" in text


def test_what_is_broken_by_more_than_rounding_does_not_hold():
    # Row and column statistics of a pretrained optimizer, at 8e-4.
    found = eqs.analysis.invariances(eqs.load_pretrained("hyperparam"), key=jr.key(1))
    assert 1e-4 < found.element_permutation < 1e-3
    (row,) = [line for line in str(found).splitlines() if "element permutation" in line]
    assert "no" in row and "yes" not in row


def test_sampled_means_depend_on_the_order_of_rows():
    star = randomised(eqs.STAR(key=jr.key(0)), jr.key(1), 0.1)
    orders = [
        eqs.analysis.invariances(o, trials=1, key=jr.key(0)).row_permutation
        for o in (star, eqs.SampledMeans(star))
    ]
    assert orders[0] < 1e-6 and orders[1] > 1e-4


def test_invariances_are_those_of_any_scale_of_the_gradients():
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    for scale in (1e-200, 1e200):
        found = eqs.analysis.invariances(sgd, trials=1, scale=scale, key=jr.key(0))
        np.testing.assert_allclose(found.loss_scale, 99, rtol=1e-6)
        assert found.translation == 0


def test_of_an_optimizer_that_does_not_move_nothing_is_said():
    still = eqs.OptaxOptimizer(optax.sgd, learning_rate=eqs.Fixed(0.0))
    table = str(eqs.analysis.invariances(still, trials=1, key=jr.key(0)))
    assert table.count("unknown") == 7 and "no " not in table.split("broken by")[1]
