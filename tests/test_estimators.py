import functools as ft
import json
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar._estimators._rollout import particle_keys

from .helpers import Growth, LinearWalk, QuadraticDescent, windows


FACTS = json.loads(
    pathlib.Path(__file__).parent.joinpath("data/estimators.json").read_text()
)


def _quadratic():
    return QuadraticDescent(jnp.asarray(FACTS["h"]), jnp.asarray(FACTS["phi0"]))


def _mean_and_standard_error(samples):
    samples = np.asarray(samples)
    return samples.mean(0), samples.std(0, ddof=1) / np.sqrt(len(samples))


@pytest.mark.parametrize("method", [eqs.PES, eqs.PESAnalytic])
def test_pes_agrees_with_its_closed_form_within_4_standard_errors(method):
    # The smoothed objective of an episode is one number only if the particles go through
    # it in step, so that the four windows of an episode form one unbiased sample.
    estimator = method(
        FACTS["window"], 50, FACTS["sigma"], eqs.ConstantLength(FACTS["T"]), eqs.LockStep()
    )
    out = windows(_quadratic(), estimator, jnp.asarray(FACTS["a"]), jr.key(0), 2000)
    episodes = np.asarray(out.gradient).reshape(-1, FACTS["T"] // FACTS["window"])
    mean, error = _mean_and_standard_error(episodes.mean(1))
    # Tight enough to tell PES (-.7088) from truncated ES (-.4346) by far.
    assert error < 0.02
    assert abs(mean - FACTS["pes_expectation"]) < 4 * error
    np.testing.assert_allclose(out.meta_loss.mean(), FACTS["mean_loss"], rtol=0.01)


def test_full_es_agrees_with_its_closed_form_within_4_standard_errors():
    estimator = eqs.FullES(FACTS["T"], 50, FACTS["sigma"])
    out = windows(_quadratic(), estimator, jnp.asarray(FACTS["a"]), jr.key(0), 500)
    mean, error = _mean_and_standard_error(out.gradient)
    assert error < 0.01
    assert abs(mean - FACTS["full_es_expectation"]) < 4 * error


@pytest.mark.parametrize(
    "starts", [eqs.LockStep(), eqs.Staggered()], ids=["lock", "stagger"]
)
@pytest.mark.parametrize("window, length", [(5, 20), (7, 20), (20, 20), (30, 20), (50, 8)])
@pytest.mark.parametrize("method", [eqs.PES, eqs.NRES, eqs.PESAnalytic])
def test_windowed_es_is_unbiased_on_the_linear_walk(method, window, length, starts):
    # E l_t = t sum(theta): the mean loss has gradient (T - 1) / 2 in every entry.
    estimator = method(window, 16, 0.1, eqs.ConstantLength(length), starts)
    theta = {"a": jnp.zeros(()), "b": jnp.zeros(2)}
    number = 60 * length
    out = windows(LinearWalk(0.1), estimator, theta, jr.key(1), number)
    for gradient in jtu.tree_leaves(out.gradient):
        # Windows are correlated within an episode: blocks of whole common periods are not.
        blocks = np.asarray(gradient)[length:].reshape(59, length, -1).mean(1)
        mean, error = _mean_and_standard_error(blocks)
        # The control variate of PESAnalytic may leave no error but rounding.
        assert np.all(np.abs(mean - (length - 1) / 2) < 4 * error + 1e-9)
        assert np.all(error < 0.12 * length)


def test_pes_with_random_lengths_is_the_gradient_of_the_loss_per_step():
    # E[sum_t t] / E[T] over T = 2, ..., 9, each as likely as the drawn distribution says.
    length = eqs.LogUniformLength(2, 9)
    lengths = np.asarray(
        jax.vmap(lambda k: length.draw(jnp.asarray(0), key=k))(jr.split(jr.key(5), 50_000))
    )
    assert set(lengths) == set(range(2, 10))
    expected = (lengths * (lengths - 1) / 2).sum() / lengths.sum()
    estimator = eqs.PES(4, 64, 0.1, length)
    out = windows(LinearWalk(0.1), estimator, jnp.zeros(()), jr.key(2), 2000)
    blocks = np.asarray(out.gradient)[200:].reshape(60, -1).mean(1)
    mean, error = _mean_and_standard_error(blocks)
    assert abs(mean - expected) < 4 * error < 0.4


def test_pes_with_a_window_of_one_episode_is_full_es_for_the_same_noise():
    unroll, theta = _quadratic(), jnp.asarray(0.3)
    pes = eqs.PES(20, 4, 0.01, eqs.ConstantLength(20), eqs.LockStep())
    full = eqs.FullES(20, 4, 0.01)
    ours = windows(unroll, pes, theta, jr.key(0), 3)
    theirs = windows(unroll, full, theta, jr.key(0), 3)
    np.testing.assert_allclose(ours.gradient, theirs.gradient, rtol=1e-9)
    np.testing.assert_allclose(ours.meta_loss, theirs.meta_loss, rtol=1e-12)


def test_pes_with_a_window_of_one_episode_is_full_es_on_a_noisy_unroll():
    # After the first window both draw each episode's start and data from the same keys.
    unroll, theta = LinearWalk(0.5), jnp.zeros(2)
    pes = eqs.PES(6, 4, 0.1, eqs.ConstantLength(6), eqs.LockStep())
    ours = windows(unroll, pes, theta, jr.key(0), 3)
    theirs = windows(unroll, eqs.FullES(6, 4, 0.1), theta, jr.key(0), 3)
    np.testing.assert_allclose(ours.gradient[1:], theirs.gradient[1:], rtol=1e-9)


def test_nres_with_a_window_of_one_episode_is_full_es_for_the_same_noise():
    # After the first window both draw each episode's noise and data from the same keys.
    for unroll, theta in [
        (_quadratic(), jnp.asarray(0.3)),
        (LinearWalk(0.5), jnp.zeros(2)),
    ]:
        nres = eqs.NRES(6, 4, 0.1, eqs.ConstantLength(6), eqs.LockStep())
        ours = windows(unroll, nres, theta, jr.key(0), 3)
        theirs = windows(unroll, eqs.FullES(6, 4, 0.1), theta, jr.key(0), 3)
        np.testing.assert_allclose(ours.gradient[1:], theirs.gradient[1:], rtol=1e-9)


def test_nres_agrees_with_the_closed_form_of_full_es():
    # One perturbation for an episode smooths as full ES does, not as PES does.
    estimator = eqs.NRES(
        FACTS["window"], 50, FACTS["sigma"], eqs.ConstantLength(FACTS["T"]), eqs.LockStep()
    )
    out = windows(_quadratic(), estimator, jnp.asarray(FACTS["a"]), jr.key(0), 2000)
    episodes = np.asarray(out.gradient).reshape(-1, FACTS["T"] // FACTS["window"])
    mean, error = _mean_and_standard_error(episodes.mean(1))
    assert error < 0.01
    assert abs(mean - FACTS["full_es_expectation"]) < 4 * error


@pytest.mark.parametrize(
    "carried, fact",
    [
        (eqs.PlusMember(), "truncated_es_expectation_plus_member_carry"),
        (eqs.MeanTheta(), "truncated_es_expectation_mean_carry"),
    ],
    ids=["plus", "mean"],
)
def test_truncated_es_has_the_bias_of_its_closed_form(carried, fact):
    length = eqs.ConstantLength(FACTS["T"])
    settings = FACTS["window"], 50, FACTS["sigma"], length, eqs.LockStep()
    args = (
        _quadratic(),
        eqs.TruncatedES(*settings, carried=carried),
        jnp.asarray(FACTS["a"]),
    )
    out = windows(*args, jr.key(0), 2000)
    episodes = np.asarray(out.gradient).reshape(-1, FACTS["T"] // FACTS["window"])
    mean, error = _mean_and_standard_error(episodes.mean(1))
    assert abs(mean - FACTS[fact]) < 4 * error < 0.02
    # The bias is real: the gradient of the whole episode is nowhere near.
    assert abs(mean - FACTS["full_es_expectation"]) > 50 * error


def test_back_propagation_is_the_analytic_gradient():
    # The quadratic's facts are deterministic, so they hold to rounding.
    unroll, theta = _quadratic(), jnp.asarray(FACTS["a"])
    length = eqs.ConstantLength(FACTS["T"])
    full = eqs.meta_gradient(unroll, eqs.FullBackprop(FACTS["T"], 2), theta, key=jr.key(0))
    np.testing.assert_allclose(full.gradient, FACTS["full_backprop"], rtol=1e-9)
    np.testing.assert_allclose(full.meta_loss, FACTS["mean_loss"], rtol=1e-9)
    truncated = eqs.TruncatedBackprop(FACTS["window"], 2, length, eqs.LockStep())
    out = eqs.meta_gradient(unroll, truncated, theta, key=jr.key(0), windows=4)
    np.testing.assert_allclose(out.gradient, FACTS["truncated_backprop"], rtol=1e-9)
    whole = eqs.TruncatedBackprop(FACTS["T"], 2, length, eqs.LockStep())
    out = eqs.meta_gradient(unroll, whole, theta, key=jr.key(0), windows=2)
    np.testing.assert_allclose(out.gradient, full.gradient, rtol=1e-12)


@pytest.mark.parametrize("window, length", [(5, 20), (7, 20), (50, 8)])
def test_truncated_backprop_on_the_linear_walk_sees_its_window_only(window, length):
    # l_t = t theta: a step's gradient counts the steps since its window or episode began,
    # whichever is later.
    estimator = eqs.TruncatedBackprop(window, 2, eqs.ConstantLength(length), eqs.LockStep())
    out = windows(LinearWalk(0.3), estimator, jnp.zeros(()), jr.key(0), length)
    steps = np.arange(window * length)
    expected = np.minimum(steps % window, steps % length).reshape(length, window).mean(1)
    np.testing.assert_allclose(out.gradient, expected, rtol=1e-12)


def test_truncated_backprop_sees_what_theta_does_to_the_start_of_an_episode():
    # Some particles start again inside of the window, and others go on.
    estimator = eqs.TruncatedBackprop(7, 16, eqs.ConstantLength(10))
    estimate = eqx.filter_jit(ft.partial(estimator.estimate, Growth()))
    theta, h = jnp.asarray(0.3), 1e-5
    state = estimator.init(Growth(), theta, key=jr.key(0))
    for key in jr.split(jr.key(1), 3):
        more, less = (estimate(theta + d, state, key=key)[0].meta_loss for d in (h, -h))
        out, state = estimate(theta, state, key=key)
        np.testing.assert_allclose(out.gradient, (more - less) / (2 * h), rtol=1e-8)


def test_full_backprop_through_inner_training_agrees_with_full_es():
    # Smoothing moves the gradient by O(sigma^2), far below the standard error.
    unroll = eqs.InnerTraining(eqs.tasks.Quadratic(jnp.array([1.0, 0.3]), noise=0.1))
    theta = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1, momentum=0.5)
    exact = eqs.meta_gradient(unroll, eqs.FullBackprop(12, 4000), theta, key=jr.key(0))
    out = windows(unroll, eqs.FullES(12, 200), theta, jr.key(1), 40)
    for g, samples in zip(
        jtu.tree_leaves(exact.gradient), jtu.tree_leaves(out.gradient), strict=True
    ):
        mean, error = _mean_and_standard_error(samples)
        assert abs(mean - g) < 4 * error
        assert error < 0.1 * abs(g)


def test_standard_error_falls_as_the_root_of_the_pairs():
    spread = []
    for pairs in (4, 16, 64):
        out = windows(_quadratic(), eqs.FullES(20, pairs), jnp.asarray(0.3), jr.key(3), 800)
        spread.append(np.std(out.gradient))
    # The relative standard error of a standard deviation from 800 is 1 / sqrt(1600).
    np.testing.assert_allclose(np.divide(spread[:-1], spread[1:]), 2, rtol=0.15)


class _Poisoned(eqs.AbstractUnroll):
    """A linear walk in which particles whose key says so meet a value at step 3."""

    value: float

    def init(self, theta, *, key):
        return jnp.zeros(()), jr.uniform(key), jnp.zeros((), jnp.int32)

    def step(self, theta, carry, *, key):
        phi, mark, t = carry
        # Only the + member, whose walk has gone up, is poisoned.
        hit = (mark < 0.5) & (t == 3) & (phi > 0)
        phi = jnp.where(hit, self.value, phi + theta)
        return (phi, mark, t + 1), phi


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_particle_that_is_not_finite_changes_no_other_ones_contribution(value):
    estimator = eqs.FullES(6, 16, 0.1)
    bad, good = (
        windows(_Poisoned(v), estimator, jnp.zeros(()), jr.key(0), 1) for v in (value, 1.0)
    )
    dropped = int(bad.dropped[0])
    assert 0 < dropped < 16
    assert int(good.dropped[0]) == 0
    assert int(bad.diverged[0]) == dropped
    # The noise is keyed by the particle. With e = eps^2 / sigma^2 each pair contributes
    # (1 + ... + 6) / 6 e = 3.5 e, one that falls back to 0 at step 3 contributes
    # ((1 + 2 + 3 + 0 + 1 + 2) + 21) / 12 e = 2.5 e, and so does any that begins at 0.
    below, fallen = (
        windows(unroll, estimator, jnp.zeros(()), jr.key(0), 1).gradient[0]
        for unroll in (LinearWalk(0.0), _Poisoned(0.0))
    )
    of_all = below / 2.5
    of_those_hit = 3.5 * of_all - fallen
    healthy = 3.5 * (of_all - of_those_hit)
    np.testing.assert_allclose(bad.gradient[0], healthy, rtol=1e-9)


def test_the_meta_loss_is_that_of_the_losses_that_are_finite():
    # Both members of a pair go up and meet NaN; those of others have 3.5 (1 +- eps).
    estimator = eqs.FullES(6, 16, 0.1)
    out = windows(_Poisoned(float("nan")), estimator, jnp.ones(()), jr.key(0), 1)
    dropped = int(out.dropped[0])
    assert 0 < dropped < 16 and jnp.isfinite(out.gradient[0])
    np.testing.assert_allclose(out.meta_loss[0], 3.5, rtol=1e-12)


class _Exploding(eqs.AbstractUnroll):
    """x' = theta x^2 from 2 theta: x_t = theta^(2^(t + 1) - 1) 2^(2^t)."""

    def init(self, theta, *, key):
        return theta * 2.0

    def step(self, theta, carry, *, key):
        return carry * carry * theta, carry


def test_first_episodes_may_be_as_long_as_any():
    length = jnp.asarray(2**31 - 1, jnp.int32)
    draw = jax.vmap(lambda k: eqs.Staggered().first_length(length, key=k))
    drawn = draw(jr.split(jr.key(0), 100))
    # Of a hundred the least is below 2**30 and the largest above but for 2 in 2**100.
    assert 1 <= drawn.min() < 2**30 < drawn.max()


def test_what_follows_a_short_episode_is_no_part_of_its_derivative():
    # At 1.5 x_9 overflows, which the last of nine steps computes, and not what up to eight
    # do; of x_t the derivative is (2^(t + 1) - 1) x_t / theta.
    length = eqs.LogUniformLength(1, 12)
    estimator = eqs.FullBackprop(length, 64)
    theta, key = jnp.asarray(1.5), jr.key(0)
    state = jnp.zeros((), jnp.int32)
    out, _ = estimator.estimate(_Exploding(), theta, state, key=key)
    keys = jax.vmap(lambda k: jr.split(k, 12)[0])(particle_keys(key, 64))
    draw = lambda k: length.draw(state, key=jr.fold_in(k, 2))
    lengths = np.asarray(jax.vmap(draw)(keys))
    powers = 2.0 ** np.arange(1, 9) - 1
    slopes = powers * 1.5 ** (powers - 1) * 2.0 ** (2.0 ** np.arange(8))
    short = lengths[lengths <= 8]
    assert 32 < len(short) < 64
    assert int(out.dropped) == 64 - len(short)
    each = np.cumsum(slopes)[short - 1] / float(length.mean(state))
    np.testing.assert_allclose(out.gradient, np.sum(each) / 64, rtol=1e-9)


def test_pairs_without_signal_are_counted():
    class Flat(eqs.AbstractUnroll):
        def init(self, theta, *, key):
            return jnp.zeros(())

        def step(self, theta, carry, *, key):
            return carry, jnp.ones(())

    out = windows(
        Flat(), eqs.PES(3, 5, length=eqs.ConstantLength(7)), jnp.ones(2), jr.key(0), 2
    )
    assert np.all(out.dead == 5)
    assert np.all(out.gradient == 0)


def test_staggered_particles_restart_at_different_steps():
    unroll = LinearWalk(0.0)
    state = eqs.PES(5, 64, length=eqs.ConstantLength(40)).init(
        unroll, jnp.zeros(()), key=jr.key(0)
    )
    first = np.asarray(state.particles.length)
    assert first.min() >= 1 and first.max() <= 40 and len(set(first)) > 20


def test_meta_gradient_averages_windows():
    estimator = eqs.PES(5, 4, 0.01, eqs.ConstantLength(20))
    args = _quadratic(), estimator, jnp.asarray(0.3)
    out = eqs.meta_gradient(*args, key=jr.key(7), windows=8)
    each = windows(*args, jr.key(7), 8)
    np.testing.assert_allclose(out.gradient, each.gradient.mean(), rtol=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: eqs.PES(window=0), "window"),
        (lambda: eqs.PES(pairs=0), "pairs"),
        (lambda: eqs.PES(sigma=0.0), "sigma"),
        (lambda: eqs.FullES(10, sigma=float("inf")), "sigma"),
        (lambda: eqs.ConstantLength(0), "at least 1"),
        (lambda: eqs.LogUniformLength(10, 5), "shortest"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_theta_without_arrays_is_refused():
    with pytest.raises(ValueError, match="nothing to differentiate"):
        eqs.PES().init(LinearWalk(0.0), {"a": 1}, key=jr.key(0))
