"""Objectives, episode lengths, splits: what of the losses the gradient is taken of."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar._keys import apart
from equistar._meta_training._feed import as_feed
from equistar._unrolls import settled

from .helpers import LinearWalk, QuadraticDescent, windows


untyped: Any = eqs


LENGTH = eqs.LogUniformLength(2, 6)
# Probabilities of the lengths 2, ..., 6, from the definition.
LENGTHS = np.arange(2, 7)
CHANCES = np.log((LENGTHS + 1) / LENGTHS) / np.log(7 / 2)
MEAN = (LENGTHS * CHANCES).sum()


def _losses(theta, length):
    """l_t = (1 + theta t)^2, which has no noise."""
    return (1 + theta * np.arange(length)) ** 2


def _slopes(theta, length):
    return 2 * (1 + theta * np.arange(length)) * np.arange(length)


class _Parabola(eqs.AbstractUnroll):
    def init(self, theta, *, key):
        return jnp.zeros(())

    def step(self, theta, carry, *, key):
        return carry + 1.0, (1 + theta * carry) ** 2


def _minimum(theta, length):
    return _slopes(theta, length)[np.argmin(_losses(theta, length))]


def _excess(theta, length, k):
    """The chain rule on log(1 + mean^k) / k."""
    mean, slope = _losses(theta, length).mean(), _slopes(theta, length).mean()
    return slope * mean ** (k - 1) / (1 + mean**k)


THETA = -0.3
# The derivative of an episode's objective, by its length, so that the mean over lengths is
# the derivative of the expectation.
OBJECTIVES = {
    "mean": (eqs.MeanLoss(), lambda n: _slopes(THETA, n).sum() / MEAN),
    "episode mean": (eqs.EpisodeMeanLoss(), lambda n: _slopes(THETA, n).mean()),
    "final": (eqs.FinalLoss(), lambda n: _slopes(THETA, n)[-1]),
    "log final": (
        eqs.LogFinalLoss(),
        lambda n: _slopes(THETA, n)[-1] / _losses(THETA, n)[-1],
    ),
    "log mean": (
        eqs.LogMeanLoss(),
        lambda n: _slopes(THETA, n).sum() / _losses(THETA, n).sum(),
    ),
    "excess": (eqs.ExcessLoss(3.0), lambda n: _excess(THETA, n, 3.0)),
    "minimum": (eqs.MinimumLoss(), lambda n: _minimum(THETA, n)),
}
STEPWISE = ["mean", "episode mean", "final", "log final"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_full_backprop_has_the_derivative_of_each_objective(name):
    objective, slope = OBJECTIVES[name]
    expected = sum(p * slope(n) for n, p in zip(LENGTHS, CHANCES, strict=True))
    # With enough particles the lengths' frequencies are their probabilities.
    estimator = eqs.FullBackprop(LENGTH, 20_000, objective)
    out = eqs.meta_gradient(_Parabola(), estimator, jnp.asarray(THETA), key=jr.key(0))
    spread = np.std([slope(n) for n in LENGTHS]) / np.sqrt(20_000)
    assert abs(out.gradient - expected) < 5 * spread


@pytest.mark.parametrize("name", OBJECTIVES)
def test_full_es_agrees_with_full_backprop_on_each_objective(name):
    objective, _ = OBJECTIVES[name]
    theta = jnp.asarray(THETA)
    exact = eqs.meta_gradient(
        _Parabola(), eqs.FullBackprop(LENGTH, 20_000, objective), theta, key=jr.key(0)
    )
    # A small sigma: smoothing then moves even the minimum's derivative by little.
    out = windows(
        _Parabola(), eqs.FullES(LENGTH, 500, 1e-3, objective), theta, jr.key(1), 40
    )
    error = np.std(out.gradient) / np.sqrt(40)
    assert abs(np.mean(out.gradient) - exact.gradient) < 4 * error + 0.02


@pytest.mark.parametrize("name", STEPWISE)
@pytest.mark.parametrize(
    "method",
    [
        lambda o: eqs.ForwardGradient(4, 200, length=LENGTH, objective=o),
        lambda o: eqs.PES(4, 200, 1e-3, LENGTH, objective=o),
        lambda o: eqs.NRES(4, 200, 1e-3, LENGTH, objective=o),
        lambda o: eqs.PESAnalytic(4, 200, 1e-3, LENGTH, objective=o),
    ],
    ids=["forward", "pes", "nres", "pes analytic"],
)
def test_windowed_estimators_agree_on_each_objective_that_is_a_sum(name, method):
    objective, slope = OBJECTIVES[name]
    expected = sum(p * slope(n) for n, p in zip(LENGTHS, CHANCES, strict=True))
    out = windows(_Parabola(), method(objective), jnp.asarray(THETA), jr.key(1), 320)
    blocks = np.asarray(out.gradient)[20:].reshape(30, -1).mean(1)
    error = blocks.std(ddof=1) / np.sqrt(30)
    assert abs(blocks.mean() - expected) < 4 * error
    assert error < 0.06 * max(1, abs(expected))


def test_truncated_backprop_through_whole_episodes_has_the_final_losss_derivative():
    length = eqs.ConstantLength(6)
    estimator = eqs.TruncatedBackprop(6, 2, length, eqs.LockStep(), eqs.FinalLoss())
    out = windows(_Parabola(), estimator, jnp.asarray(THETA), jr.key(0), 2)
    np.testing.assert_allclose(out.gradient, _slopes(THETA, 6)[-1], rtol=1e-12)


def test_the_logarithm_of_other_steps_losses_stays_out_of_the_gradient():
    # The first loss is 0, whose logarithm is infinite; the last is (2 theta)^2.
    class FromZero(eqs.AbstractUnroll):
        def init(self, theta, *, key):
            return jnp.zeros(())

        def step(self, theta, carry, *, key):
            return carry + 1.0, (theta * carry) ** 2

    estimator = eqs.FullBackprop(3, 1, eqs.LogFinalLoss())
    out = eqs.meta_gradient(FromZero(), estimator, jnp.asarray(0.5), key=jr.key(0))
    np.testing.assert_allclose(out.gradient, 2 / 0.5, rtol=1e-12)


@pytest.mark.parametrize(
    "length, chances",
    [(LENGTH, CHANCES), (eqs.ConstantLength(4), [0, 0, 1, 0, 0])],
    ids=["log-uniform", "constant"],
)
def test_lengths_are_drawn_with_their_probabilities_and_mean(length, chances):
    draw = jax.vmap(lambda k: length.draw(jnp.asarray(0), key=k))
    drawn = np.asarray(draw(jr.split(jr.key(0), 50_000)))
    frequencies = np.bincount(drawn, minlength=7)[2:] / 50_000
    np.testing.assert_allclose(frequencies, chances, atol=5 * 0.5 / np.sqrt(50_000))
    mean = length.mean(jnp.asarray(0))
    np.testing.assert_allclose(mean, np.dot(LENGTHS, chances), rtol=1e-12)


def test_a_growing_length_is_geometric_and_then_stays():
    length = eqs.GrowingLength(10, 1000, 100)
    means = [float(length.mean(jnp.asarray(n))) for n in (0, 50, 100, 5000)]
    assert means == [10, 100, 1000, 1000]
    # In 32 bits the formula rounds beyond the end.
    for first, last in ((7, 10_000_000), (1, 2**31 - 1), (2**31 - 1, 3)):
        length = eqs.GrowingLength(first, last, 10)
        drawn = [int(length.draw(jnp.int32(n), key=jr.key(0))) for n in (0, 5, 10, 99)]
        assert drawn[0] == first and drawn[2:] == [last, last]
        assert min(first, last) < drawn[1] < length.maximum


def test_a_curriculum_draws_from_the_stage_of_the_meta_step():
    # Windows of 4: three of them run episodes of 2, and later ones episodes of 6.
    length = eqs.Curriculum({3: eqs.ConstantLength(6), 0: eqs.ConstantLength(2)})
    assert length.maximum == 6
    estimator = eqs.TruncatedBackprop(4, 1, length, eqs.LockStep())
    state = estimator.init(LinearWalk(0.0), jnp.zeros(()), key=jr.key(0))
    step = eqx.filter_jit(estimator.estimate)
    lengths = []
    for n in range(6):
        _, state = step(LinearWalk(0.0), jnp.zeros(()), state, key=jr.key(n))
        lengths.append(int(state.length[0]))
    assert lengths == [2, 2, 2, 6, 6, 6]
    # Steps 4 * 6 = 24 = 6 episodes of 2 and 2 of 6.
    assert int(state.step[0]) == 6


class _Ones(eqs.AbstractUnroll):
    """Whose losses are all theta."""

    def init(self, theta, *, key):
        return jnp.zeros(())

    def step(self, theta, carry, *, key):
        return carry, theta


@pytest.mark.parametrize("objective", [eqs.EpisodeMeanLoss(), eqs.FinalLoss()])
@pytest.mark.parametrize(
    "length", [eqs.Curriculum({0: 20, 4: 2000}), eqs.GrowingLength(20, 2000, 20)]
)
def test_an_episode_is_weighed_by_the_length_that_was_expected_when_it_began(
    length, objective
):
    # In every window, the losses of an episode of T steps sum to its T, and so to the
    # number of steps.
    estimator = eqs.ForwardGradient(
        8, 1, length=length, starts=eqs.LockStep(), objective=objective
    )
    out = windows(_Ones(), estimator, jnp.ones(()), jr.key(0), 600)
    total = np.cumsum(out.meta_loss)
    if isinstance(objective, eqs.EpisodeMeanLoss):
        np.testing.assert_allclose(out.meta_loss, 1, rtol=1e-6)
    # Until the last episode that has ended, of which all has been recorded.
    np.testing.assert_allclose(out.gradient, out.meta_loss, rtol=1e-6)
    assert total[-1] <= 600 * (1 + 1e-6) and total[-1] >= 600 - 2000 / 8


def test_restarts_are_as_likely_as_ever_once_staggered_particles_have_settled():
    # The renewal equation, with first lengths uniform on 1, ..., T.
    shortest, longest = 3, 300
    n = np.arange(shortest, longest + 1)
    chances = np.log((n + 1) / n) / np.log((longest + 1) / shortest)
    length = eqs.LogUniformLength(shortest, longest)
    steps = settled(length)
    of_length = np.zeros(steps + 2)
    of_length[shortest : longest + 1] = chances
    restarts = np.zeros(steps + 2)
    for t, chance in zip(n, chances, strict=True):
        restarts[1 : t + 1] += chance / t
    for t in range(2, steps + 2):
        restarts[t] += restarts[1:t] @ of_length[t - 1 : 0 : -1]
    in_the_long_run = 1 / (n * chances).sum()
    at = lambda t: abs(restarts[t] / in_the_long_run - 1)
    assert at(steps) < 1e-3 < 5e-3 < at(longest)
    assert settled(eqs.ConstantLength(longest)) == longest


def test_a_curriculum_is_the_mean_of_its_stage_in_full_episodes():
    length = eqs.Curriculum({0: eqs.ConstantLength(3), 1: eqs.ConstantLength(6)})
    out = windows(
        _Parabola(), eqs.FullBackprop(length, 2), jnp.asarray(THETA), jr.key(0), 2
    )
    expected = [_slopes(THETA, 3).mean(), _slopes(THETA, 6).mean()]
    np.testing.assert_allclose(out.gradient, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: eqs.Curriculum({5: eqs.ConstantLength(6)}), "meta-step 0"),
        (lambda: eqs.GrowingLength(0, 10, 10), "at least 1"),
        (lambda: eqs.GrowingLength(1, 2**33, 10), "below 2"),
        (lambda: untyped.PES(sigma="0.1"), "`sigma` must be one number"),
        (lambda: untyped.PES(sigma=10**400), "`sigma` must be one number"),
        (lambda: untyped.InfluenceBalancing("a"), "`states` must be a whole .* got 'a'"),
        (lambda: untyped.InfluenceBalancing(23, 2.5), "`positive` must be a whole number"),
        (lambda: eqs.InfluenceBalancing(3, 4), "`positive` must be between 1 and `states`"),
        (lambda: untyped.PerLeafNoise({"a": "x"}), "noise must be one number"),
        (lambda: untyped.Relative(None, "x"), "`reference` must be one number"),
        (lambda: untyped.ExcessLoss("x"), "`sharpness` must be one number"),
        (lambda: eqs.ClipDifference(0.0), "limit"),
        (lambda: eqs.SignDifference(-1.0), "scale"),
        (lambda: eqs.PerLeafNoise({"a": 0.0}), "positive"),
        (lambda: eqs.RandomDirections(0), "number"),
        (lambda: eqs.Segments(0), "`length` must be a whole number"),
        (lambda: untyped.Segments(2.5), "`length` must be a whole number"),
        (lambda: untyped.Curriculum({0: 10, 0.5: 20}), "whole number"),
        (lambda: untyped.Curriculum(100), "must be lengths by the meta-step .*got"),
        (lambda: eqs.Curriculum({0: 10, 2**31: 20}), r"`stages` must be below 2\*\*31"),
        (lambda: eqs.default_outer(clip=0.0), "at 0 nothing is trained"),
        (lambda: untyped.default_outer(clip_by="norm"), "`clip_by` must be a function"),
        (lambda: untyped.default_outer(mask=True), "`mask` must be a function"),
        (lambda: eqs.TruncatedBackprop(5, 0), "particles"),
        (lambda: eqs.ForwardGradient(0), "window"),
    ],
)
def test_options_that_make_no_sense_are_refused(as_users_call, make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "objective", [eqs.LogMeanLoss(), eqs.LogFinalLoss(), eqs.ExcessLoss()]
)
def test_a_loss_of_zero_has_a_finite_slope(objective):
    n = jnp.asarray(3)
    losses = jnp.zeros(3)
    value, slope = jax.value_and_grad(objective.episode)(losses, n, jnp.asarray(3.0))
    assert jnp.isfinite(value) and jnp.all(jnp.isfinite(slope))


class _TwoSplits(eqs.tasks.AbstractTask):
    """The loss is p in training and 10 p on held-out data, plus noise of the batch."""

    loss_bounds: tuple[float, float] = (-1e3, 1e3)

    def init(self, *, key):
        return jnp.ones(())

    def loss(self, params, *, key, split=eqs.tasks.Split.TRAIN):
        scale = 10.0 if split == eqs.tasks.Split.INNER_VALID else 1.0
        return scale * params + jr.normal(key)


def test_the_meta_loss_is_taken_on_the_split_that_was_asked_for():
    # One step of SGD at rate .1 on the gradient 1 takes p from 1 to .9.
    theta, key = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1), jr.key(7)
    noise = jr.normal(key)
    losses = {}
    for name, meta_loss in {
        "batch": eqs.TrainingBatch(),
        "after": eqs.AfterUpdate(),
        "held out": eqs.HeldOut(),
        "by name": eqs.HeldOut("inner_valid"),  # pyright: ignore
        "outer": eqs.HeldOut(eqs.tasks.Split.OUTER_VALID),
    }.items():
        unroll = eqs.InnerTraining(_TwoSplits(), meta_loss)
        carry = unroll.init(theta, key=key)
        losses[name] = unroll.step(theta, carry, key=key)[1]
    other = jr.normal(apart(key, "held"))
    np.testing.assert_allclose(losses["batch"], 1 + noise, rtol=1e-6)
    np.testing.assert_allclose(losses["after"], 0.9 + noise, rtol=1e-6)
    np.testing.assert_allclose(losses["held out"], 10 + other, rtol=1e-6)
    np.testing.assert_allclose(losses["by name"], losses["held out"])
    np.testing.assert_allclose(losses["outer"], 1 + other, rtol=1e-6)


def test_the_after_update_loss_is_the_next_training_loss_on_a_fixed_batch():
    unroll = QuadraticDescent(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0]))
    task = eqs.tasks.Quadratic(unroll.curvature)
    theta, key = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1), jr.key(0)
    after = eqs.InnerTraining(task, eqs.AfterUpdate())
    carry = after.init(theta, key=key)
    carry, first = after.step(theta, carry, key=key)
    _, before = eqs.InnerTraining(task).step(theta, carry, key=key)
    np.testing.assert_allclose(first, before, rtol=1e-12)


def test_an_excess_loss_is_the_logarithm_far_above_one_and_a_power_far_below():
    length, mean_length = jnp.asarray(2), jnp.asarray(3.0)
    excess = lambda loss: eqs.ExcessLoss(4.0).episode(
        jnp.full(3, loss), length, mean_length
    )
    # log(1 + x) is x to second order.
    np.testing.assert_allclose(excess(1e-2), 1e-8 / 4, rtol=1e-7)
    np.testing.assert_allclose(excess(1.0), np.log(2) / 4)
    np.testing.assert_allclose(excess(1e100), np.log(1e100))
    assert excess(0.0) == jax.grad(excess)(0.0) == 0


def test_the_sharpness_of_an_excess_loss_is_positive():
    with pytest.raises(ValueError, match="`sharpness` must be positive"):
        eqs.ExcessLoss(0.0)


def test_losses_relative_to_a_reference_have_the_gradient_in_its_units():
    theta, key = jnp.asarray(THETA), jr.key(0)
    gradient = lambda unroll, objective: (
        eqs.meta_gradient(
            unroll, eqs.FullBackprop(LENGTH, 4, objective), theta, key=key
        ).gradient
    )
    relative = eqs.Relative(_Parabola(), 8)
    # Of a sum an eighth, and of a logarithm the same.
    np.testing.assert_allclose(
        gradient(relative, eqs.MeanLoss()), gradient(_Parabola(), eqs.MeanLoss()) / 8
    )
    np.testing.assert_allclose(
        gradient(relative, eqs.LogMeanLoss()), gradient(_Parabola(), eqs.LogMeanLoss())
    )


def test_losses_that_are_counts_are_divided_by_the_reference_as_it_is(as_users_call):
    class Errors(_Parabola):
        def step(self, theta, carry, *, key):
            return carry, jnp.array(3, jnp.int32)

    zero = jnp.zeros(())
    _, loss = eqs.Relative(Errors(), 0.4).step(zero, zero, key=jr.key(0))
    np.testing.assert_allclose(loss, 7.5)


@pytest.mark.parametrize("reference", [0, -1.0, np.inf, np.nan])
def test_a_reference_is_positive(reference):
    with pytest.raises(ValueError, match="`reference` must be positive and finite"):
        eqs.Relative(_Parabola(), reference)
    with pytest.raises(ValueError, match="`reference` must be positive and finite"):
        eqs.RelativeFeed(as_feed(_Parabola()), reference)


def test_parameters_that_are_not_finite_record_the_bound_from_the_next_step_on():
    # A bias of -inf is behind a relu: its loss is finite, and that after an update is not.
    unroll = eqs.InnerTraining(eqs.tasks.digits_mlp())
    star = eqs.STAR(key=jr.key(0))
    carry = unroll.init(star, key=jr.key(0))
    bias = lambda c: c.params.layers[0].bias
    carry = eqx.tree_at(bias, carry, bias(carry).at[0].set(-jnp.inf))
    carry, loss = unroll.step(star, carry, key=jr.key(1))
    assert loss < unroll.task.loss_bounds[1]
    _, loss = unroll.step(star, carry, key=jr.key(2))
    assert loss == unroll.task.loss_bounds[1]
