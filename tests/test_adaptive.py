"""The parts beyond the paper's, and the optimizer that they make."""

import functools as ft
import math
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
from equistar._components import default_accumulators
from equistar._components._bfloat16 import stochastic_bfloat16

from .helpers import randomised


def _gradients(n, shape=(5, 3)):
    return jr.normal(jr.key(0), (n, *shape))


def _after(bank, g, state=None, t=0):
    state = state or {k: a.init(g) for k, a in bank.items()}
    tensor = eqs.Tensor(jnp.ones_like(g), g, state, jnp.array(t))
    return {k: bank[k].update(s, tensor) for k, s in state.items()}


@eqx.filter_jit
def _run(optimizer, gradients, param):
    def step(carry, g):
        param, state = carry
        update, state = optimizer.update(g, state, param)
        return (param + update, state), update

    carry, updates = jax.lax.scan(step, (param, optimizer.init(param)), gradients)
    return updates, carry[1]


def test_bias_corrected_averages_are_adams():
    momentum = eqs.Momentum((0.9, 0.99), eqs.BiasCorrection())
    bank = {"m": momentum, "v": eqs.SecondMoment(0.999, eqs.BiasCorrection())}
    gradients, state = _gradients(30), {}
    plain_m, plain_v = jnp.zeros((2, 5, 3)), jnp.zeros((5, 3))
    for t, g in enumerate(gradients):
        state = _after(bank, g, state, t)
        m, v = state["m"], state["v"]
        for i, b in enumerate((0.9, 0.99)):
            plain_m = plain_m.at[i].set(b * plain_m[i] + (1 - b) * g)
            np.testing.assert_allclose(m[i], plain_m[i] / (1 - b ** (t + 1)), rtol=1e-9)
        plain_v = 0.999 * plain_v + 0.001 * g**2
        np.testing.assert_allclose(v[0], plain_v / (1 - 0.999 ** (t + 1)), rtol=1e-9)


def test_bias_corrected_factors_are_means_of_what_was_seen():
    bank = {"factored": eqs.FactoredSecondMoment((0.9,), eqs.BiasCorrection())}
    gradient, state = _gradients(1)[0], {}
    for t in range(4):
        state = _after(bank, gradient, state, t)
    (factors,) = state["factored"]
    np.testing.assert_allclose(factors.row, jnp.mean(gradient**2, 0), rtol=1e-9)
    np.testing.assert_allclose(factors.column, jnp.mean(gradient**2, 1), rtol=1e-9)


# Meta-learned decays can leave [0, 1): 1 - b = exp(10 offset) (1 - b_init).
@pytest.mark.parametrize("complement", (0.0, 1e-9, 1.0, 3.0))
def test_bias_correction_is_finite_for_any_decay(complement):
    correct = eqs.BiasCorrection()
    weights = [correct(jnp.array(complement), jnp.array(t)) for t in (0, 1, 10**6)]
    assert np.all(np.isfinite(weights)) and weights[0] == pytest.approx(1)
    assert all(0 < w <= 1 + 1e-12 for w in weights)


def test_gradient_scale_is_the_rms_of_adams_direction():
    optimizer = eqs.STAR(preconditioner=eqs.GradientScale(1), key=jr.key(0))
    g = _gradients(1)[0]
    tensor = eqs.Tensor(g, g, _after(optimizer.accumulators, g), jnp.array(0))
    expected = np.sqrt(np.mean(np.square(0.01 * g / np.sqrt(0.001 * g**2 + 1e-6))))
    assert float(eqs.GradientScale(1)(tensor)) == pytest.approx(float(expected), rel=1e-9)


def _statistics(gradients, param):
    bank = default_accumulators(eqs.BiasCorrection())
    bank, state = {k: bank[k] for k in ("momentum", "second_moment")}, {}
    for t, g in enumerate(gradients):
        state = _after(bank, g, state, t)
    count = jnp.array(len(gradients) - 1)
    return eqs.TensorStatistics()(eqs.Tensor(param, gradients[-1], state, count)).tensor


def test_statistics_of_a_steady_gradient_are_known():
    param = jnp.full((50, 20), 0.1)
    found = _statistics([jnp.full((50, 20), 3.0)] * 10, param)
    # A_j = 1: all logarithms of it are zero, and nothing turns.
    expected = [1, 1, 0, 0.5, 0, 0.3, 0.5, 0.5, 1, 1, 1 / 3.5]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = _statistics([jnp.full(100, 3.0)] * 10, jnp.full(100, 0.1))
    np.testing.assert_allclose(found[1:5], [0, 0, 0, 0], atol=1e-9)
    kernel = _statistics([jnp.full((3, 3, 4, 5), 3.0)], jnp.full((3, 3, 4, 5), 0.1))
    np.testing.assert_array_equal(kernel[1:3], [1, 1])


def test_statistics_tell_noise_from_signal_and_turning_from_going_on():
    param, steady = jnp.ones(4000), [jnp.ones(4000)] * 200
    noise = list(jr.normal(jr.key(1), (200, 4000)))
    # Of white noise the mean square of m is (1 - b) / (1 + b), where b^t is small.
    fast = np.log10(np.sqrt(0.1 / 1.9)) + 0.3
    assert _statistics(noise, param)[5] == pytest.approx(fast, abs=0.02)
    back = [jnp.ones(4000)] * 100 + [-jnp.ones(4000)] * 40
    assert _statistics(back, param)[8] == pytest.approx(-1, abs=1e-3)
    assert _statistics(steady, param)[8] == pytest.approx(1)


def test_statistics_do_not_see_the_unit_of_the_loss():
    gradients, param = list(1e3 * _gradients(20)), jnp.ones((5, 3))
    once = _statistics(gradients, param)
    again = _statistics([1e4 * g for g in gradients], param)
    np.testing.assert_allclose(once, again, rtol=1e-6)


def test_statistics_are_finite_without_a_gradient_and_have_slopes():
    found = lambda g: jnp.sum(_statistics([g], jnp.zeros((3, 2))))
    value, slope = jax.value_and_grad(found)(jnp.zeros((3, 2)))
    assert np.isfinite(value) and np.all(np.isfinite(slope))


_DESCENT = {
    **default_accumulators(eqs.BiasCorrection()),
    "log_step_size": eqs.HypergradientDescent(0.1, 0.02),
}


def _threshold(cosine, size, threshold=0.02):
    """That of hypergradient descent: lower where a cosine is more than noise."""
    return threshold / (1 + cosine**2 / (0.003 + 4 / size))


def _log_step_size(gradients, bank=_DESCENT):
    state = {}
    for t, g in enumerate(gradients):
        state = _after(bank, g, state, t)
    return float(state["log_step_size"][0])


def test_hypergradient_descent_adds_up_cosines_with_the_direction_before():
    gradients, state, expected = _gradients(6), {}, 0.0
    for t, g in enumerate(gradients):
        if state:
            before = eqs.Tensor(g, g, state, jnp.array(t))
            d = np.asarray(sum(before.normalised_momentum))
            cosine = float(np.sum(d * g) / np.linalg.norm(d) / np.linalg.norm(g))
            usual = np.sqrt(np.sum(before.second_moment))
            assert -cosine * np.linalg.norm(g) < usual
            expected += 0.1 * (cosine - _threshold(cosine, g.size))
        state = _after(_DESCENT, g, state, t)
        assert float(state["log_step_size"][0]) == pytest.approx(expected, rel=1e-9)


def test_a_step_grows_where_gradients_agree_and_shrinks_where_they_turn():
    steady, tau = jnp.ones((5, 3)), _threshold(1, 15)
    # Nothing at the first update, where there was no step before.
    assert _log_step_size([steady] * 11) == pytest.approx(10 * 0.1 * (1 - tau), rel=1e-9)
    assert _log_step_size([steady, -steady]) == pytest.approx(-0.1 * (1 + tau), rel=1e-9)
    assert _log_step_size([steady] * 99) == pytest.approx(7)
    assert _log_step_size([steady, 0 * steady, 0 * steady]) == 0
    annealed = {**_DESCENT, "log_step_size": eqs.HypergradientDescent(0.1, 0.02, burn_in=3)}
    rates = sum(0.1 * min(1, 3 / (t + 1)) for t in range(1, 11))
    expected = pytest.approx((1 - tau) * rates, rel=1e-9)
    assert _log_step_size([steady] * 11, annealed) == expected
    tiny = [1e-15 * g for g in _gradients(5)]
    assert np.isfinite(_log_step_size(tiny)) and _log_step_size(tiny) != 0


def test_its_cosine_is_the_slope_of_the_loss_in_the_last_steps_logarithm():
    # With g of the loss at p - exp(s) d, d loss / d s = -exp(s) g.d.
    curvature, p = jnp.array([1.0, 4.0, 0.5]), jnp.array([1.0, -2.0, 3.0])
    loss = lambda p: 0.5 * jnp.sum(curvature * p * p)
    bank, first = _DESCENT, jax.grad(loss)(p)
    state = _after(bank, first)
    d = sum(eqs.Tensor(p, first, state, jnp.array(0)).normalised_momentum) / 3
    after = lambda s: loss(p - jnp.exp(s) * d)
    for size in (0.1, 1.0, 3.0):
        g = jax.grad(loss)(p - size * d)
        change = float(_after(bank, g, state, 1)["log_step_size"][0]) / 0.1
        norms = np.linalg.norm(g) * np.linalg.norm(d) * size
        cosine = -float(jax.grad(after)(jnp.log(size))) / norms
        assert change == pytest.approx(cosine - _threshold(cosine, 3), rel=1e-9)


def test_noise_meets_the_whole_threshold_and_agreement_hardly_any():
    # One step along a direction, and gradients at angles to it: what is added beyond the
    # cosine itself.
    for size, cosine, share in ((9, 0.0, 1), (9, 2 / 3, 1 / 2), (10**6, 0.9, 0.0037)):
        first = jnp.zeros(size).at[0].set(1)
        g = jnp.zeros(size).at[0].set(cosine).at[1].set(np.sqrt(1 - cosine**2))
        added = _log_step_size([first, g]) / 0.1 - cosine
        assert added == pytest.approx(-0.02 * share, rel=0.01, abs=1e-12)


def test_a_gradient_whose_square_overflows_is_a_step_that_overshot():
    steady = jnp.ones((5, 3))
    # r = 1e160: the step size falls as far as it can.
    assert _log_step_size([steady] * 11 + [-1e160 * steady]) == -9


def test_a_step_that_overshoots_far_becomes_twice_that_to_the_minimum_at_once():
    # On a parabola, at p, whose gradient is the usual one: past the minimum by twice p the
    # slope is twice that. Twice p is the largest step that does not raise the loss.
    p, curvature = jnp.array([3.0]), 5.0
    first = curvature * p
    state = _after(_DESCENT, first)
    for size in (1.0, 5.9, 6.1, 8.9, 9.1, 60.0, 6e3):
        g = curvature * (p - size)
        change = float(_after(_DESCENT, g, state, 1)["log_step_size"][0])
        change -= 0.1 * (float(jnp.sign(g[0])) - _threshold(1, 1))
        expected = size if size < 9 else 6
        assert size * np.exp(change) == pytest.approx(expected, rel=1e-6)


def test_a_fresh_gain_is_one_and_its_size_is_checked():
    gain = eqs.TensorGain()
    g = jnp.ones((2, 2))
    tensor = eqs.Tensor(g, g, _after(default_accumulators(), g), jnp.array(0))
    assert float(gain(tensor)) == 1
    doubled = eqx.tree_at(lambda x: x.weights, gain, jnp.zeros(11).at[0].set(np.log(2) / 3))
    assert float(doubled(tensor)) == pytest.approx(2)
    huge = eqx.tree_at(lambda x: x.weights, gain, jnp.zeros(11).at[0].set(1e6))
    assert float(huge(tensor)) == pytest.approx(np.exp(7))
    with pytest.raises(ValueError, match="pass `start` with 11 numbers"):
        eqs.TensorGain(start=(0.0,) * 3)(tensor)


def test_a_gain_multiplies_the_learned_terms_and_not_the_decay():
    make = ft.partial(
        eqs.LearnedOptimizer, nominal=eqs.NominalTerm(), weight_decay=eqs.WeightDecay(0.01)
    )
    gain = eqx.tree_at(
        lambda x: x.weights, eqs.TensorGain(), jnp.zeros(11).at[0].set(np.log(2) / 3)
    )
    param, g = jnp.ones((5, 3)), _gradients(1)
    plain, _ = _run(make(), g, param)
    doubled, _ = _run(make(gain=gain), g, param)
    np.testing.assert_allclose(doubled + 0.01, 2 * (plain + 0.01), rtol=1e-9)


def test_parts_that_make_no_sense_are_refused(as_users_call):
    with pytest.raises(ValueError, match="one or more feature sets"):
        eqs.JoinedFeatures()
    with pytest.raises(ValueError, match="`index` must be a whole number of at least 0"):
        eqs.GradientScale(-1)
    for wrong in ((0.0, 0.0), (np.inf, 0.0), (0.1, 2.0), (0.1, np.nan)):
        with pytest.raises(ValueError, match="`rate` must be positive"):
            eqs.HypergradientDescent(*wrong)
    untyped: Any = eqs.HypergradientDescent
    for burn_in in (0, 1.5):
        with pytest.raises(ValueError, match="`burn_in` must be a whole number"):
            untyped(burn_in=burn_in)
    with pytest.raises(ValueError, match=r"`rate` must be one number, .*got 'x'"):
        untyped("x")
    with pytest.raises(ValueError, match="'log_step_size', but there are only"):
        eqs.LearnedOptimizer(gain=eqs.TensorGain(eqs.LogStepSize(), (3.0,)))
    with pytest.raises(ValueError, match="finite numbers"):
        eqs.TensorGain(start=(np.nan,) * 11)
    star = eqs.STAR(preconditioner=eqs.GradientScale(5), key=jr.key(0))
    with pytest.raises(ValueError, match="only 3: use a smaller `index`"):
        _run(star, _gradients(1), jnp.ones((5, 3)))


@pytest.mark.parametrize("shape", [(5, 3), (7,), ()])
def test_mean_squares_that_adafactors_features_know_are_those_of_their_inputs(shape):
    param, g = (
        jnp.linspace(-1.0, 2.0, math.prod(shape)).reshape(shape),
        _gradients(1, shape)[0],
    )
    tensor = eqs.Tensor(param, g, _after(default_accumulators(), g), jnp.array(7))
    inputs = eqs.AdafactorFeatures()(tensor)
    kinds = {"element"} if len(shape) == 2 else {"element", "row", "column"}
    assert set(inputs.mean_squares) == kinds
    for kind in kinds:
        expected = [jnp.mean(x * x) for x in getattr(inputs, kind)]
        np.testing.assert_allclose(inputs.mean_squares[kind], expected, rtol=1e-12)


def test_joined_features_are_both_sets():
    param, g = jnp.ones((5, 3)), _gradients(1)[0]
    tensor = eqs.Tensor(param, g, _after(default_accumulators(), g), jnp.array(7))
    both = eqs.JoinedFeatures(eqs.AdafactorFeatures((1, 10)), eqs.TensorStatistics())
    first, second = (part(tensor) for part in both.sets)
    joined = both(tensor)
    assert len(joined) == len(first) + len(second) == 28 + 2 + 11
    for kind in ("element", "row", "column", "mean_squares"):
        assert eqx.tree_equal(getattr(joined, kind), getattr(first, kind))
    np.testing.assert_allclose(joined.tensor[:2], np.tanh([6, -0.3]), rtol=1e-12)
    np.testing.assert_array_equal(joined.tensor[2:], second.tensor)
    twice = eqs.JoinedFeatures(eqs.AdafactorFeatures(), eqs.AdafactorFeatures())(tensor)
    squares = np.tile(first.mean_squares["element"], 2)
    np.testing.assert_array_equal(twice.mean_squares["element"], squares)
    for kind in ("element", "row", "column"):
        once = list(getattr(first, kind))
        for x, y in zip(getattr(twice, kind), once + once, strict=True):
            np.testing.assert_array_equal(x, y)


def _without_magnitudes(optimizer):
    sizes = lambda o: [o.blackbox.magnitude, o.nominal.magnitude]
    return eqx.tree_at(sizes, optimizer, [eqs.NoMagnitudeController()] * 2)


@pytest.mark.parametrize("rms", (1e-3, 0.1, 2.0))
def test_a_fresh_one_falls_with_the_size_of_a_tensor_and_rises_with_that_of_its_entries(
    rms,
):
    optimizer = _without_magnitudes(eqs.AdaptiveSTAR(key=jr.key(0)))
    gradients = jnp.sign(_gradients(1, (20, 30)))
    update, _ = _run(optimizer, gradients, jnp.full((20, 30), rms))
    size, scale = (600 / 1000) ** (-0.415 / np.log(10)), 0.98 / np.log(10)
    matrix, vector = 0.01 * np.exp(0.665) * size, 0.01 * np.exp(0.165) * size
    expected = matrix * (rms / 0.1) ** scale
    np.testing.assert_allclose(update[0], -expected * gradients[0], rtol=1e-4)
    # A vector's entries, or those of a matrix that starts at zero, say nothing yet.
    for param, neutral in ((jnp.full(600, rms), vector), (jnp.zeros((20, 30)), matrix)):
        gradients = jnp.ones((1, *param.shape))
        update, _ = _run(optimizer, gradients, param)
        np.testing.assert_allclose(update[0], -neutral, rtol=1e-4)


def test_a_fresh_one_is_aggmo_on_adams_direction():
    optimizer = _without_magnitudes(eqs.AdaptiveSTAR(key=jr.key(0)))
    optimizer = eqx.tree_at(lambda o: o.gain, optimizer, eqs.NoGain())
    gradients = _gradients(12)
    updates, _ = _run(optimizer, gradients, jnp.ones((5, 3)))
    directions = []
    for b in (0.6, 0.965, 0.998):
        adam = optax.scale_by_adam(b, 0.997, eps=0, eps_root=1e-6)
        state, out = adam.init(gradients[0]), []
        for g in gradients:
            with jax.numpy_dtype_promotion("standard"):
                direction, state = adam.update(g, state)
            out.append(direction)
        directions.append(jnp.stack(out))
    np.testing.assert_allclose(updates, -0.01 * sum(directions) / 3, rtol=1e-6)


@pytest.mark.parametrize("shape", ((7,), (2, 3, 4), (70, 90)))
def test_its_update_is_the_formula(shape):
    optimizer = randomised(eqs.AdaptiveSTAR(key=jr.key(0)), jr.key(1), 0.1)
    param, gradients = jr.normal(jr.key(2), shape), jr.normal(jr.key(3), (4, *shape))
    updates, state = _run(optimizer, gradients, param)
    tensor = eqs.Tensor(
        param + sum(updates[:-1]), gradients[-1], state.accumulators, jnp.array(3)
    )
    inputs = optimizer.features(tensor)
    spread = [*inputs.element, *inputs.row, *inputs.column]
    spread = [np.broadcast_to(np.asarray(x), shape) for x in spread]
    units = [x / np.sqrt(1e-5 + np.mean(x**2)) for x in spread]
    units += [np.broadcast_to(np.asarray(x), shape) for x in inputs.tensor]
    hidden = np.stack(units, -1)
    for w, b in zip(optimizer.network.weights, optimizer.network.biases, strict=True):
        hidden = np.maximum(hidden @ np.asarray(w) + np.asarray(b), 0)
    head = lambda h: hidden @ np.asarray(h.weight) + float(h.bias)
    black, nominal = optimizer.blackbox, optimizer.nominal
    a = [np.asarray(x) for x in tensor.normalised_momentum]
    step = 0.01 * head(black.direction) * np.exp(0.1 * head(black.magnitude.head))
    step *= np.sqrt(np.mean(a[0] ** 2))
    step += 0.01 * np.exp(0.1 * head(nominal.magnitude.head)) * sum(a) / 3
    statistics = np.asarray(optimizer.features.sets[1](tensor).tensor)
    gain = np.exp(3 * np.asarray(optimizer.gain.weights) @ statistics)
    np.testing.assert_allclose(updates[-1], -gain * step, rtol=1e-6, atol=1e-12)


def test_it_comes_to_rest_where_gradients_vanish():
    optimizer = randomised(eqs.AdaptiveSTAR(key=jr.key(0)), jr.key(1), 0.1)
    star = randomised(eqs.STAR(key=jr.key(0)), jr.key(1), 0.1)

    gradients = jnp.zeros((20_000, 5, 3)).at[0].set(_gradients(1)[0])
    last = lambda o: jnp.max(jnp.abs(_run(o, gradients, jnp.ones((5, 3)))[0][-1]))
    assert last(optimizer) < 1e-7
    # The paper's preconditioner rises to 1000 there, and the step goes on.
    assert last(star) > 1e-3


def test_it_has_no_counterpart_in_other_layouts():
    with pytest.raises(ValueError, match="JoinedFeatures"):
        eqs.interop.to_learned_optimization(eqs.AdaptiveSTAR(key=jr.key(0)))
    plain = eqs.STAR(key=jr.key(0))
    gained = eqx.tree_at(lambda o: o.gain, plain, eqs.TensorGain())
    with pytest.raises(ValueError, match="TensorGain"):
        eqs.interop.to_learned_optimization(gained)
    corrected = eqx.tree_at(
        lambda o: o.accumulators, plain, default_accumulators(eqs.BiasCorrection())
    )
    with pytest.raises(ValueError, match="BiasCorrection"):
        eqs.interop.to_learned_optimization(corrected)
    short = eqx.tree_at(lambda o: o.features, plain, eqs.AdafactorFeatures((1, 10)))
    with pytest.raises(ValueError, match="time scales"):
        eqs.interop.to_learned_optimization(short)


def test_rounding_to_bfloat16_is_right_in_the_mean_and_keeps_what_fits():
    x = jnp.array([0.1, -3.3, 1e-20, 257.0, 1.0, 0.0, jnp.inf, jnp.nan], jnp.float32)
    rounded = jax.vmap(lambda t: stochastic_bfloat16(x, t))(jnp.arange(20_000))
    assert rounded.dtype == jnp.bfloat16
    rounded = np.asarray(rounded.astype(jnp.float64))
    np.testing.assert_array_equal(rounded[:, 4:], np.broadcast_to(x[4:], (20_000, 4)))
    near = np.asarray(x[:4].astype(jnp.bfloat16).astype(jnp.float64))
    assert np.all(np.abs(rounded[:, :4] - near) <= np.abs(near) / 64)
    for i in range(4):
        error = rounded[:, i].std() / np.sqrt(20_000)
        assert 0 < error and abs(rounded[:, i].mean() - float(x[i])) < 5 * error


def test_a_slow_average_in_bfloat16_arrives_and_in_the_mean_is_that_of_float32():
    whole, half = eqs.Momentum((0.999,)), eqs.InBFloat16(eqs.Momentum((0.999,)))
    bank, g = (
        {"whole": whole, "half": half},
        jnp.full(2000, 1 / 3) + _gradients(1, (2000,))[0],
    )

    def step(state, t):
        tensor = eqs.Tensor(g, g, jtu.tree_map(lambda x: x.astype(g.dtype), state), t)
        return {k: bank[k].update(s, tensor) for k, s in state.items()}, None

    state = {k: a.init(g) for k, a in bank.items()}
    state, _ = jax.lax.scan(step, state, jnp.arange(3000))
    assert state["half"][0].dtype == jnp.bfloat16
    found = state["half"][0].astype(g.dtype) / state["whole"][0]
    assert abs(float(jnp.mean(found)) - 1) < 1e-3 and float(jnp.std(found)) < 0.1

    # Rounded to the nearest it stays where its steps are less than half a digit.
    def naive(m, _):
        return (0.999 * m.astype(g.dtype) + 0.001 * g).astype(jnp.bfloat16), None

    stuck, _ = jax.lax.scan(naive, jnp.zeros(2000, jnp.bfloat16), length=3000)
    assert float(jnp.mean(stuck.astype(g.dtype) / state["whole"][0])) < 0.9

    # Equal numbers err apart, so that their mean is right to the root of their number.
    g = jnp.ones_like(g)
    same = {k: a.init(g) for k, a in bank.items()}
    same, _ = jax.lax.scan(step, same, jnp.arange(3000))
    found = same["half"][0].astype(g.dtype) / same["whole"][0]
    deviation = float(jnp.std(found))
    assert 0 < deviation < 0.1
    assert abs(float(jnp.mean(found)) - 1) < 5 * deviation / np.sqrt(2000)


def test_an_optimizer_keeps_its_momenta_in_bfloat16_and_has_derivatives(tmp_path):
    star = randomised(eqs.STAR(key=jr.key(0)), jr.key(1), 0.1)
    bank = star.accumulators
    bank = {**bank, "momentum": eqs.InBFloat16(bank["momentum"])}
    half = eqx.tree_at(lambda o: o.accumulators, star, bank)
    gradients, param = _gradients(20), jnp.ones((5, 3))
    updates, state = _run(half, gradients, param)
    kept = state.accumulators["momentum"]
    assert {m.dtype for m in kept} == {jnp.dtype(jnp.bfloat16)}
    expected, _ = _run(star, gradients, param)
    np.testing.assert_allclose(updates, expected, atol=0.05 * np.max(np.abs(expected)))
    loss = lambda o: jnp.sum(_run(o, gradients, param)[0] ** 2)
    slopes, exact = (eqx.filter_grad(loss)(o) for o in (half, star))
    pick = lambda s: s.blackbox.direction.weight
    np.testing.assert_allclose(pick(slopes), pick(exact), rtol=0.2)
    eqs.save(tmp_path / "half.npz", half)
    assert eqx.tree_equal(eqs.load(tmp_path / "half.npz"), half)
