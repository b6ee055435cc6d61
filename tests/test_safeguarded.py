"""What each safeguard promises holds for any learned optimizer, and nothing more."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

import equistar as eqs


class _Wild(eqs.AbstractOptimizer):
    """Anything: a random linear map of the gradient, noise, huge steps, NaN."""

    matrix: jax.Array
    size: jax.Array
    broken: jax.Array

    def init(self, params):
        return jnp.zeros((), jnp.int32)

    def update(self, grads, state, params, **extra):
        noise = jr.normal(jr.fold_in(jr.key(0), state), params.shape)
        updates = self.size * (self.matrix @ grads + noise)
        bad = (state % 7 == 3) & self.broken
        return jnp.where(bad, jnp.nan, updates), state + 1


@eqx.filter_jit
def _descend(curvature, start, learned, criterion, share, steps=60):
    """Losses of safeguarded descent on a quadratic, and its last state."""
    loss = lambda p: 0.5 * jnp.sum(curvature * p**2)
    rate = share * 2 / jnp.max(curvature)
    fallback = eqs.OptaxOptimizer(optax.sgd, learning_rate=rate)
    optimizer = eqs.Safeguarded(learned, fallback, criterion)

    def body(carry, _):
        p, state = carry
        updates, state = optimizer.update(jax.grad(loss)(p), state, p, value_fn=loss)
        return (p + updates, state), (loss(p), state.fell_back)

    (_, state), (losses, fell_back) = jax.lax.scan(
        body, (start, optimizer.init(start)), length=steps
    )
    return losses, fell_back, state


@settings(max_examples=200)
@given(
    st.integers(0, 2**31 - 1),
    st.floats(-3, 3),
    st.floats(0.01, 0.99),
    st.booleans(),
)
def test_no_learned_optimizer_makes_the_loss_of_a_quadratic_rise(seed, size, share, broken):
    rng = np.random.default_rng(seed)
    curvature = jnp.asarray(10 ** rng.uniform(-2, 2, 4))
    matrix, start = rng.standard_normal((4, 4)), rng.standard_normal(4)
    learned = _Wild(jnp.asarray(matrix), jnp.asarray(10**size), jnp.asarray(broken))
    losses, fell_back, state = _descend(
        curvature,
        jnp.asarray(start),
        learned,
        eqs.PassedEnergyDecrease(0.5),
        jnp.asarray(share),
    )
    assert np.all(np.isfinite(losses))
    assert np.all(np.diff(losses) <= 1e-12 * np.asarray(losses)[:-1])
    # Each step gives at least half of what gradient descent would have given.
    slowest = 1 - 2 * share * np.asarray(curvature).min() / np.asarray(curvature).max()
    worst = max(abs(slowest), abs(1 - 2 * share)) ** 2
    assert losses[-1] <= losses[0] * ((1 + worst) / 2) ** 59 * (1 + 1e-9)
    assert int(state.fallbacks) == int(np.sum(fell_back))


def _negated(rate):
    return eqs.OptaxOptimizer(optax.sgd, learning_rate=eqs.Fixed(-rate))


def test_the_negated_nominal_step_passes_a_step_bound_and_diverges():
    curvature, start = jnp.array([1.0, 0.5]), jnp.ones(2)
    # The fallback's rate is .5 x 2 / 1 = 1, and the learned step is as long, uphill.
    losses, fell_back, _ = _descend(
        curvature, start, _negated(1.0), eqs.StepBound(1.0), jnp.asarray(0.5)
    )
    assert not np.any(fell_back)
    assert losses[-1] > 1e12 * losses[0]


def test_a_step_bound_bounds_the_step():
    curvature, start = jnp.array([1.0, 0.5]), jnp.ones(2)
    losses, fell_back, state = _descend(
        curvature, start, _negated(1.001), eqs.StepBound(1.0), jnp.asarray(0.5)
    )
    assert np.all(fell_back) and int(state.fallbacks) == 60
    assert losses[-1] < losses[0]


def test_a_learned_step_that_meets_the_criterion_is_taken():
    curvature, start = jnp.array([1.0, 0.5]), jnp.ones(2)
    newton = _Wild(-jnp.diag(1 / curvature), jnp.asarray(1.0), jnp.asarray(False))
    newton = eqx.tree_at(lambda w: w.matrix, newton, -jnp.diag(1 / curvature) * 1e6)
    newton = eqx.tree_at(lambda w: w.size, newton, jnp.asarray(1e-6))
    _, fell_back, _ = _descend(
        curvature, start, newton, eqs.PassedEnergyDecrease(1.0), jnp.asarray(0.1), steps=2
    )
    assert not fell_back[0]


def test_a_fixed_energy_works_in_optax_under_vmap_and_in_meta_training():
    energy = lambda p: 0.5 * jnp.sum(p**2)
    fallback = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    learned = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.5)
    safe = eqs.Safeguarded(learned, fallback, eqs.EnergyDecrease(energy))
    optim = optax.chain(optax.clip(10.0), eqs.as_optax(safe))
    params = jnp.arange(6.0).reshape(3, 2)
    state = jax.vmap(optim.init)(params)
    updates, _ = jax.jit(jax.vmap(optim.update))(params, state, params)
    np.testing.assert_allclose(updates, -0.5 * params, rtol=1e-6)
    unroll = eqs.InnerTraining(eqs.tasks.Quadratic(jnp.ones(2)))
    result = eqs.meta_train(
        unroll,
        eqs.PES(5, 2, length=eqs.ConstantLength(10)),
        safe,
        optax.sgd(0.1),
        steps=2,
        key=jr.key(0),
    )
    assert np.isfinite(result.history.meta_loss).all()


@pytest.mark.parametrize(
    "learned, fallback, allowed",
    [
        # Squares of these overflow float32, or vanish in it.
        (1e38, 1e20, False),
        (1e38, 0.51e38, True),
        (3.4e38, 1.6e38, False),
        (3.4e38, 1.8e38, True),
        (3e-38, 1.3e-38, False),
        (3e-38, 1.6e-38, True),
        (1e-23, 1e-30, False),
        (1e-30, 1e-30, True),
        (0.0, 0.0, True),
        (1.0, 0.0, False),
        (1.0, np.nan, False),
        (1.0, np.inf, False),
    ],
)
def test_a_step_bound_holds_at_every_scale(learned, fallback, allowed):
    one = lambda x: {
        "a": jnp.full(2, x, jnp.float32),
        "empty": jnp.zeros((0,), jnp.float32),
    }
    bound = eqs.StepBound(2.0)
    assert bool(bound(one(learned), one(fallback), one(0.0))) == allowed


def test_a_step_bound_takes_trees_of_several_dtypes_and_of_nothing():
    dtypes = (jnp.bfloat16, jnp.float32, jnp.zeros(()).dtype)
    steps = [jnp.ones(3, dtype) for dtype in dtypes]
    double = [2 * s for s in steps]
    assert eqs.StepBound(2.0)(double, steps, steps)
    assert not eqs.StepBound(1.9)(double, steps, steps)
    assert eqs.StepBound(1.0)({}, {}, {})


def test_training_passes_the_loss_on_each_minibatch_to_the_criterion():
    task = eqs.tasks.Quadratic(jnp.array([1.0, 0.5]))
    fallback = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.5)
    safe = eqs.Safeguarded(_negated(0.5), fallback, eqs.PassedEnergyDecrease())
    result = eqs.train(task, safe, steps=20, key=jr.key(0))
    # Uphill at every step, so the fallback's is taken, whose losses fall.
    assert int(result.opt_state.fallbacks) == 20
    assert np.all(np.diff(result.losses) < 0)


def test_back_propagation_reaches_the_optimizer_whose_step_was_taken():
    task = eqs.tasks.Quadratic(jnp.ones(2))
    sgd = lambda rate: eqs.OptaxOptimizer(optax.sgd, learning_rate=rate)
    estimator = eqs.FullBackprop(length=eqs.ConstantLength(5))

    # Of steps of 0.5 and 0.1 on a curvature of 1, the longer gives more and is taken.
    def slopes(learned, fallback):
        safe = eqs.Safeguarded(sgd(learned), sgd(fallback), eqs.PassedEnergyDecrease(1.0))
        unroll = eqs.InnerTraining(task)
        gradient = eqs.meta_gradient(unroll, estimator, safe, key=jr.key(0)).gradient
        return [
            float(jtu.tree_leaves(part)[0])
            for part in (gradient.learned, gradient.fallback)
        ]

    learned, fallback = slopes(0.5, 0.1)
    assert learned < 0 and fallback == 0
    learned, fallback = slopes(0.1, 0.5)
    assert learned == 0 and fallback < 0


def test_the_state_of_another_optimizer_is_refused(as_users_call):
    params, sgd = jnp.ones(2), eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    safe: Any = eqs.Safeguarded(sgd, sgd, eqs.StepBound())
    with pytest.raises(ValueError, match=r"another optimizer: call `init\(params\)`"):
        safe.update(params, sgd.init(params), params)
    count = eqx.tree_at(lambda s: s.fallbacks, safe.init(params), None)
    with pytest.raises(ValueError, match=r"The fallbacks of .* must be one integer"):
        safe.update(params, count, params)


def test_what_is_missing_or_makes_no_sense_is_said():
    learned = fallback = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    safe = eqs.Safeguarded(learned, fallback, eqs.PassedEnergyDecrease())
    params = jnp.ones(2)
    with pytest.raises(ValueError, match="value_fn=loss"):
        safe.update(params, safe.init(params), params)
    for make in (lambda: eqs.StepBound(0.0), lambda: eqs.PassedEnergyDecrease(2.0)):
        with pytest.raises(ValueError, match="must be"):
            make()


@pytest.mark.parametrize(
    "ours, theirs, falls_back",
    [
        (0.1, 50.0, False),  # The fallback's step leaves the domain: its energy is NaN.
        (50.0, 0.1, True),
        (-0.1, 50.0, True),  # And against no decrease an increase is none either.
    ],
)
def test_an_energy_that_is_nan_is_no_decrease(ours, theirs, falls_back):
    energy = lambda p: p - jnp.log(p)
    sgd = lambda rate: eqs.OptaxOptimizer(optax.sgd, learning_rate=eqs.Fixed(rate))
    safe = eqs.Safeguarded(sgd(ours), sgd(theirs), eqs.EnergyDecrease(energy))
    params = jnp.array(3.0)
    _, state = safe.update(jax.grad(energy)(params), safe.init(params), params)
    assert bool(state.fell_back) == falls_back


def test_any_finite_energy_is_a_decrease_from_an_infinite_one():
    sgd = lambda rate: eqs.OptaxOptimizer(optax.sgd, learning_rate=eqs.Fixed(rate))
    energy = lambda p: jnp.where(p > 2, jnp.inf, p)
    safe = eqs.Safeguarded(sgd(2.0), sgd(1.0), eqs.EnergyDecrease(energy))
    params = jnp.array(2.5)
    _, state = safe.update(jnp.array(1.0), safe.init(params), params)
    assert not state.fell_back


def test_an_optax_transformation_is_asked_for_as_an_optimizer(as_users_call):
    star = eqs.STAR(key=jr.key(0))
    with pytest.raises(ValueError, match=r"`fallback` .* `OptaxOptimizer\(optax"):
        eqs.Safeguarded(star, optax.sgd(0.1), eqs.StepBound())  # pyright: ignore
