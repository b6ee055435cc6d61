"""Least squares: the closed form against plain descent, and Theorems 5 and 6."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from equistar.analysis import descent_iterates, draw_least_squares


@pytest.mark.parametrize("samples, size", [(12, 8), (8, 12), (8, 8)])
def test_the_closed_form_is_plain_gradient_descent(samples, size):
    problem = draw_least_squares(samples, size, 0.5, key=jr.key(0))
    rates = jnp.array([1e-3, 0.1, 0.4, 0.7])
    ours = descent_iterates(problem, rates, 15)
    for rate, w in zip(rates, ours, strict=True):
        plain = jnp.zeros(size)
        for _ in range(15):
            plain = plain - rate * jax.grad(problem.loss)(plain)
        np.testing.assert_allclose(w, plain, rtol=1e-8, atol=1e-10)


def test_an_iterate_that_reaches_the_bound_freezes():
    problem = draw_least_squares(10, 6, 0.5, key=jr.key(0))
    rates = jnp.array([0.05, 50.0, 1e6])
    ours = np.asarray(descent_iterates(problem, rates, 400, 20.0))
    assert np.linalg.norm(ours[0]) < 20
    np.testing.assert_array_equal(ours[1:], [[20, 0, 0, 0, 0, 0]] * 2)
    # Without a bound the same iterates overflow.
    free = np.asarray(descent_iterates(problem, rates, 400))
    assert not np.all(np.isfinite(free[2]))


RATES = jnp.logspace(-4, 0.3, 60)


@eqx.filter_jit
def _tuned(samples, size, noise, steps, tasks, key):
    """Best step sizes and their errors, by training and by validation loss."""

    def one(key):
        problem = draw_least_squares(samples, size, noise, key=key)
        first, second = problem.split(samples // 2)
        whole = descent_iterates(problem, RATES, steps, 40 * noise)
        part = descent_iterates(first, RATES, steps, 40 * noise)
        error = lambda w: jnp.sum((w - problem.truth[None]) ** 2, axis=1)
        return problem.loss(whole), second.loss(part), error(whole), error(part)

    means = [jnp.mean(x, axis=0) for x in jax.vmap(one)(jr.split(key, tasks))]
    best = jnp.argmin(means[0]), jnp.argmin(means[1])
    return [(RATES[b], means[2 + i][b]) for i, b in enumerate(best)]


def test_theorem_5_the_step_size_by_validation_shrinks_as_one_over_the_horizon():
    # n = n_1 = n_2 between d / 4 and 3 d / 4, and a large noise.
    found = [_tuned(60, 60, 3.0, t, 60, jr.key(0)) for t in (10, 20, 40, 80)]
    train = np.array([float(f[0][0]) for f in found])
    valid = np.array([float(f[1][0]) for f in found])
    product = valid * [10, 20, 40, 80]
    # The grid's steps are 18 % apart, so 1 / t to within two of them.
    assert product.max() / product.min() < 1.5
    assert train.min() > 0.6 * train.max()
    assert valid[-1] < 0.2 * train[-1]


def test_theorem_5_train_by_train_fits_the_noise_and_train_by_validation_beats_zero():
    for noise in (2.0, 4.0):
        (_, train), (_, valid) = _tuned(30, 60, noise, 80, 60, jr.key(1))
        # Omega(s^2) above, and below the zero predictor's error of 1.
        assert train > 0.3 * noise**2 > 1
        assert valid < 1


def test_theorem_6_with_many_samples_train_by_train_is_enough():
    size, noise = 20, 1.0
    errors, gaps = [], []
    for ratio in (4, 16, 64):
        (_, train), (_, valid) = _tuned(ratio * size, size, noise, 60, 40, jr.key(2))
        errors.append(float(train) * ratio)
        gaps.append(abs(float(train) - float(valid)))
    # E |w - w*|^2 <= (1 + e) d s^2 / n, with e falling with n / d.
    assert errors[-1] < 1.15 * noise**2
    assert errors[0] < 1.6 * noise**2
    assert gaps[0] > 1.5 * gaps[1] > 2.25 * gaps[2]
