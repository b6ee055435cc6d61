"""Estimators compared, and the health of back-propagated meta-gradients."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar.analysis import Health

from .helpers import LinearWalk, QuadraticDescent


LENGTH = eqs.ConstantLength(20)


@pytest.fixture(scope="module")
def comparison():
    # On the linear walk the exact gradient of the mean loss is (T - 1) / 2 = 9.5.
    theta = jnp.zeros(2)
    estimators = {
        "PES": eqs.PES(5, 8, 0.1, LENGTH),
        "FullES": eqs.FullES(20, 8, 0.1),
        "TruncatedES": eqs.TruncatedES(5, 8, 0.1, LENGTH, eqs.LockStep()),
        "FullBackprop": eqs.FullBackprop(20, 8),
    }
    return eqs.analysis.compare_estimators(
        LinearWalk(0.3),
        estimators,
        theta,
        reference=eqs.analysis.ExactGradient(jnp.full(2, 9.5)),
        steps=200,
        runs=100,
        key=jr.key(0),
    )


@pytest.mark.parametrize("name", ["PES", "FullES", "FullBackprop"])
def test_unbiased_estimators_are_found_unbiased(comparison, name):
    assert comparison.reports[name].bias_score < 4.5
    assert comparison.reports[name].bias < 4 * max(
        comparison.reports[name].bias_error, 1e-4
    )


def test_the_bias_of_truncation_is_found(comparison):
    # A step sees itself and its predecessors in the window only: 2 instead of 9.5.
    report = comparison.reports["TruncatedES"]
    np.testing.assert_allclose(report.mean, 2, atol=5 * report.bias_error)
    assert report.bias_score > 20
    np.testing.assert_allclose(report.bias, 7.5 * np.sqrt(2), rtol=0.1)


def test_variances_are_those_of_the_closed_form(comparison):
    # Full ES of l_t = t sum(theta): a pair gives eps_j sum(eps) (T - 1) / 2 / sigma^2,
    # whose variance for two parameters is 9.5^2 ((2 + 1) - 1 + ...) = 3 9.5^2 - ... : with
    # z ~ N(0, I), Var(z_1 (z_1 + z_2)) = E z^4 + E z_1^2 z_2^2 - 1 = 3 + 1 - 1 = 3.
    expected = 2 * 3 * 9.5**2 / (8 * 10)  # 8 pairs, 200 / 20 estimates, two numbers.
    np.testing.assert_allclose(comparison.reports["FullES"].variance, expected, rtol=0.5)
    assert comparison.reports["FullBackprop"].variance < 1e-12


def test_the_comparison_is_a_table_and_a_figure(comparison, tmp_path):
    text = str(comparison)
    assert all(name in text for name in comparison.reports)
    for report in comparison.reports.values():
        assert report.seconds > 0 and report.memory > 0
        assert report.cost == report.seconds * report.variance
    comparison.plot(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_a_long_run_is_a_reference_with_a_standard_error():
    reference = eqs.analysis.LongRun(eqs.FullES(20, 8, 0.1), runs=200)
    mean, error = reference.gradient(LinearWalk(0.3), jnp.zeros(2), 20, key=jr.key(3))
    assert np.all(np.abs(mean - 9.5) < 4 * error)
    assert np.all(error < 1)


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(ValueError, match="needs an estimator"):
        eqs.analysis.compare_estimators(
            LinearWalk(0.3),
            {},
            jnp.zeros(2),
            reference=eqs.analysis.ExactGradient(jnp.zeros(2)),
            steps=10,
            key=jr.key(0),
        )


HORIZONS = [1, 3, 10, 30, 100, 300, 1000]


def _health(unroll, theta, **options):
    return eqs.analysis.meta_gradient_health(
        unroll, theta, HORIZONS, key=jr.key(0), particles=4, **options
    )


def test_a_polynomial_growth_is_healthy():
    # The exact gradient at horizon T is (T - 1) / 2 in each of two numbers.
    health = _health(LinearWalk(0.1), jnp.full(2, 0.1))
    expected = (np.array(HORIZONS) - 1) / 2 * np.sqrt(2)
    np.testing.assert_allclose(health.magnitude[:, 1], expected, rtol=1e-9)
    assert health.verdicts[1:] == (Health.HEALTHY,) * 6


def _descent(step, dtype):
    curvature = jnp.array([1.0, 0.5], dtype)
    return QuadraticDescent(curvature, jnp.ones(2, dtype)), jnp.asarray(step, dtype)


def test_a_step_size_beyond_stability_explodes():
    # The loss grows as |1 - 3|^(2t) = 4^t: float32 overflows at t = 64.
    health = _health(*_descent(3.0, jnp.float32))
    assert health.verdict == Health.EXPLODING
    assert health.turns_at in HORIZONS[:5]
    assert health.infinite[-1] + health.nan[-1] == 1


@pytest.mark.parametrize("horizons", [[1, 10, 100], [1, 10], [100]])
def test_an_explosion_is_seen_though_losses_stand_at_their_bound(horizons):
    # One number is multiplied by -2 in each step. The first loss does not depend on the
    # step size, and from some twenty steps on the recorded loss is the task's bound.
    unroll = eqs.InnerTraining(eqs.tasks.Quadratic(jnp.array([2.0, 1.0, 0.1])))
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=1.5)
    health = eqs.analysis.meta_gradient_health(unroll, sgd, horizons, key=jr.key(0))
    assert health.turns_at == (horizons[-1] if len(horizons) == 1 else 10)
    assert health.verdicts[-1] == Health.EXPLODING
    stable = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    health = eqs.analysis.meta_gradient_health(unroll, stable, horizons, key=jr.key(0))
    assert health.verdict == Health.HEALTHY


def test_a_final_loss_that_underflows_is_silently_zero():
    # At step 1.2 the final loss falls as .4^(2t): float32 holds 1e-38, t = 48.
    health = _health(*_descent(1.2, jnp.float32), objective=eqs.FinalLoss())
    assert health.verdicts[-1] == Health.SILENTLY_ZERO
    assert health.zero[-1] == 1 and health.nan[-1] == 0
    assert Health.VANISHING in health.verdicts


def test_the_health_report_is_a_table_and_a_figure(tmp_path):
    health = _health(*_descent(3.0, jnp.float32))
    assert "exploding" in str(health)
    health.plot(tmp_path / "health.png")
    assert (tmp_path / "health.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("horizons", [[], [0, 1], [3, 2]])
def test_horizons_that_do_not_grow_are_refused(horizons):
    with pytest.raises(ValueError, match="increasing"):
        eqs.analysis.meta_gradient_health(
            LinearWalk(0.1), jnp.zeros(2), horizons, key=jr.key(0)
        )
