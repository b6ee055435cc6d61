"""Step sizes: closed forms against arbitrary precision, bounds, and the cure."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import mpmath
import numpy as np
import optax
import pytest
from hypothesis import given, settings, strategies as st

import equistar as eqs
from equistar.analysis import RenormalisedUnroll, StepSizeProblem

from .helpers import QuadraticDescent


N = 20


@ft.cache
def _instance(dtype="float64"):
    x = np.asarray(jr.normal(jr.key(0), (N, 2 * N)), np.float64)
    lam, u = np.linalg.eigh(x @ x.T)
    w = np.asarray(jr.normal(jr.key(1), (N,)), np.float64)
    c = u.T @ w / np.linalg.norm(w)
    return StepSizeProblem(jnp.asarray(lam, dtype), jnp.asarray(c, dtype))


def _exact(problem, eta, t):
    """F, F', G' by arbitrary precision, at the numbers as they are rounded."""
    with mpmath.workdps(60):
        eta = mpmath.mpf(float(eta))
        lam = [mpmath.mpf(float(x)) for x in problem.eigenvalues]
        c = [mpmath.mpf(float(x)) for x in problem.coefficients]
        f = (
            sum(a**2 * h * (1 - eta * h) ** (2 * t) for a, h in zip(c, lam, strict=True))
            / 2
        )
        df = -t * sum(
            a**2 * h**2 * (1 - eta * h) ** (2 * t - 1) for a, h in zip(c, lam, strict=True)
        )
        logs = float(mpmath.log(f)), float(mpmath.log(abs(df)))
        return *logs, float(mpmath.sign(df)), float(df / (f * t))


_all = eqx.filter_jit(
    lambda p, eta, t: (p.loss(eta, t), p.loss_slope(eta, t), p.log_objective_slope(eta, t))
)
HORIZONS = (1, 10, 80, 1000, 10_000)
# Shares of 2 / L, on both sides of it, and a tiny step.
SHARES = (1e-4, 0.3, 0.8, 0.95, 0.999, 1.001, 1.2, 5.0)


@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-6), ("float32", 1e-2)])
@pytest.mark.parametrize("t", HORIZONS)
def test_closed_forms_agree_with_arbitrary_precision(t, dtype, tolerance):
    problem = _instance(dtype)
    limit = 2 / float(problem.eigenvalues[-1])
    best = float(_instance().best_step_size(t))
    tiny = 1e-6
    for eta in (tiny, *(share * limit for share in SHARES)):
        if abs(eta / best - 1) < 0.05:
            continue  # The zero of the slope, where nothing is left but rounding.
        eta = jnp.asarray(eta, dtype)
        loss, slope, g = _all(problem, eta, jnp.asarray(t))
        log_f, log_df, sign, dg = _exact(problem, eta, t)
        # A relative error of a number is an absolute one of its logarithm; where that is
        # in the thousands, float32 holds it to 1e-7 of itself.
        allowed = tolerance + np.finfo(dtype).eps * 4 * abs(log_f)
        assert abs(float(loss.log) - log_f) < allowed
        assert abs(float(slope.log) - log_df) < allowed
        assert float(slope.sign) == sign
        np.testing.assert_allclose(g, dg, rtol=tolerance)


# What is left of 1 is then of the size of the products' rounding.
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_closed_forms_are_exact_where_each_mode_is_solved_at_once(dtype):
    eta, t = jnp.asarray(0.7, dtype), 10_000
    eigenvalues = (1 + jnp.asarray([-3e-3, 1e-3, 2e-4, 1e-5])) / 0.7
    problem = StepSizeProblem(eigenvalues.astype(dtype), jnp.ones(4, dtype))
    loss, slope, g = _all(problem, eta, jnp.asarray(t))
    log_f, log_df, sign, dg = _exact(problem, eta, t)
    rounding = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(loss.log, log_f, rtol=rounding)
    np.testing.assert_allclose(slope.log, log_df, rtol=rounding)
    assert float(slope.sign) == sign
    # Shares of modes are exponentials of differences of two logarithms.
    np.testing.assert_allclose(g, dg, rtol=rounding * abs(log_f))


@pytest.mark.parametrize("t", [1000, 10_000, 100_000])
def test_the_log_objective_and_its_slope_are_right_in_float32_at_long_horizons(t):
    cases = (
        (np.logspace(-8, 3, 5), (0.3, 5.0)),
        (np.linspace(0.01, 100, 20), (0.1, 1.0)),
        # Where the power is of a number just above -1.
        (np.ones(1), (2 - 1e-5, 2 + 1e-5)),
    )
    for eigenvalues, etas in cases:
        ones = jnp.ones(len(eigenvalues), "float32")
        problem = StepSizeProblem(jnp.asarray(eigenvalues, "float32"), ones)
        for eta in etas:
            loss, _, g = _all(problem, jnp.asarray(eta, "float32"), jnp.asarray(t))
            log_f, _, _, dg = _exact(problem, np.float32(eta), t)
            np.testing.assert_allclose(loss.log, log_f, rtol=1e-6)
            np.testing.assert_allclose(g, dg, rtol=1e-5)


def test_where_every_mode_is_solved_there_is_no_slope_of_the_log_objective():
    problem = StepSizeProblem(jnp.array([2.0]), jnp.ones(1))
    assert np.isnan(problem.log_objective_slope(jnp.asarray(0.5), 3))
    assert problem.log_objective(jnp.asarray(0.5), 3) == -np.inf


# For one step F is a parabola, with its minimum at sum c^2 l^2 / sum c^2 l^3.
@pytest.mark.parametrize("ratio", [1e-3, 1e-12, 1e-25, 1e-37])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_best_step_size_is_found_whatever_the_condition_number(ratio, dtype):
    lam = np.asarray([ratio, 0.5, 1.0], dtype)
    best = StepSizeProblem(jnp.asarray(lam), jnp.ones(3, dtype)).best_step_size(1)
    exact = np.sum(lam.astype(float) ** 2) / np.sum(lam.astype(float) ** 3)
    np.testing.assert_allclose(best, exact, rtol=20 * float(jnp.finfo(dtype).eps))


# The small term of F' outweighs what is left of the large one.
@pytest.mark.parametrize("dtype, rtol", [("float64", 1e-6), ("float32", 1e-2)])
def test_slopes_are_exact_at_a_step_that_solves_the_steepest_mode(dtype, rtol):
    lam = jnp.asarray([1e-3, 3.0] if dtype == "float32" else [1e-6, 1e-4, 3e5], dtype)
    eta, ones = 1 / lam[-1], jnp.ones(len(lam), dtype)
    problem = StepSizeProblem(lam, ones)
    _, slope, g = _all(problem, eta, jnp.asarray(1))
    _, log_df, sign, dg = _exact(problem, eta, 1)
    assert float(slope.sign) == sign
    np.testing.assert_allclose(float(slope.log), log_df, atol=rtol)
    np.testing.assert_allclose(g, dg, rtol=rtol)


@pytest.mark.parametrize("t", [1, 5, 50])
def test_closed_forms_are_those_of_gradient_descent(t):
    problem, eta = _instance(), 0.9 * 2 / _instance().eigenvalues[-1]

    def descend(eta):
        w = problem.coefficients
        for _ in range(t):
            w = w - eta * problem.eigenvalues * w
        return 0.5 * jnp.sum(problem.eigenvalues * w**2)

    value, slope = jax.value_and_grad(descend)(eta)
    np.testing.assert_allclose(problem.loss(eta, t).value(), value, rtol=1e-9)
    np.testing.assert_allclose(problem.loss_slope(eta, t).value(), slope, rtol=1e-9)
    np.testing.assert_allclose(problem.log_objective(eta, t), np.log(value) / t, rtol=1e-9)
    automatic = jax.grad(lambda e: problem.log_objective(e, t))(eta)
    np.testing.assert_allclose(problem.log_objective_slope(eta, t), automatic, rtol=1e-9)


# Hypothesis draws whole grids: 5 problems by 60 step sizes at one horizon.
def _drawn(seed, spread):
    rng = np.random.default_rng(seed)
    lam = 10 ** rng.uniform(-spread, 1, (5, 6))
    return eqx.filter_vmap(StepSizeProblem)(
        jnp.asarray(lam), jnp.asarray(rng.standard_normal((5, 6)))
    )


@eqx.filter_jit
def _on_grid(problems, t):
    def one(p):
        shares = jnp.concatenate(
            [jnp.linspace(0.001, 0.999, 40), jnp.linspace(1.001, 4, 20)]
        )
        etas = shares * 2 / jnp.max(p.eigenvalues)
        values = jax.vmap(
            lambda e: (
                p.loss_slope(e, t),
                p.vanishing_bound(e, t),
                p.exploding_bound(e, t),
                p.log_objective(e, t),
                p.log_objective_slope(e, t),
            )
        )(etas)
        return etas, values, p.log_objective_bound(), p.best_step_size(t)

    return eqx.filter_vmap(one)(problems)


problems = st.builds(_drawn, st.integers(0, 2**31 - 1), st.floats(0.1, 2))
horizons = st.integers(1, 10_000)


@settings(max_examples=40)
@given(problems, horizons)
def test_theorem_3_the_naive_slope_is_inside_its_bounds(drawn, t):
    _, (slope, below, above, _, _), _, _ = _on_grid(drawn, jnp.asarray(t))
    assert np.all(slope.log <= below.log + 1e-9 * (1 + np.abs(below.log)))
    unstable = np.s_[:, 40:]
    says = np.asarray(above.sign)[unstable] > 0
    lower = np.where(says, np.asarray(above.log)[unstable], -np.inf)
    assert np.all(np.asarray(slope.log)[unstable] >= lower - 1e-9 * (1 + np.abs(lower)))


def test_the_bounds_are_those_of_eigenspaces_and_not_of_their_bases():
    merged = StepSizeProblem(jnp.array([1.0, 3.0]), jnp.array([1.0, 1.0]))
    eigenvalues = jnp.array([1.0, 1.0, 3.0, 3.0])
    repeated = StepSizeProblem(eigenvalues, jnp.array([0.0, 1.0, 0.6, 0.8]))
    eta = jnp.asarray(0.9)
    ours, theirs = (p.exploding_bound(eta, 20) for p in (repeated, merged))
    np.testing.assert_allclose(ours.log, theirs.log, rtol=1e-12)
    assert ours.sign == theirs.sign == 1
    bounds = [p.log_objective_bound() for p in (repeated, merged)]
    np.testing.assert_allclose(*bounds, rtol=1e-12)
    assert bounds[0] < 200


def test_theorem_3_the_naive_slope_vanishes_and_explodes_exponentially():
    problem = _instance()
    limit = 2 / problem.eigenvalues[-1]
    logs = lambda share: np.array(
        [problem.loss_slope(share * limit, t).log for t in (1000, 2000, 4000)]
    )
    # A thousand steps more multiply it by the same factor, up to the factor t.
    assert np.all(np.diff(logs(0.9)) / [1000, 2000] < -0.01)
    assert np.all(np.diff(logs(1.1)) / [1000, 2000] > 0.3)


@settings(max_examples=40)
@given(problems, horizons)
def test_theorem_4_the_log_objective_is_unimodal(drawn, t):
    etas, (_, _, _, g, slope), _, best = _on_grid(drawn, jnp.asarray(t))
    away = np.abs(etas / np.asarray(best)[:, None] - 1) > 1e-6
    right = np.asarray(etas) > np.asarray(best)[:, None]
    assert np.all((np.asarray(slope) > 0)[away] == right[away])
    values = np.asarray(g)
    falls = values[:, 1:] < values[:, :-1]
    before = np.asarray(etas)[:, 1:] <= np.asarray(best)[:, None]
    after = np.asarray(etas)[:, :-1] >= np.asarray(best)[:, None]
    assert np.all(falls[before]) and not np.any(falls[after])


@settings(max_examples=40)
@given(problems, horizons)
def test_theorem_4_the_log_objectives_slope_is_bounded_whatever_the_horizon(drawn, t):
    _, (_, _, _, _, slope), bound, _ = _on_grid(drawn, jnp.asarray(t))
    assert np.all(np.abs(slope) <= np.asarray(bound)[:, None])


META_STEPS = 4000


@eqx.filter_jit
def _meta_descend(problems, t, share):
    """Along meta-gradient descent on G with steps of c / sqrt(k), c = .05 (2 / L)^2.

    The least of |G'| |eta - eta*|, the largest |G'|, the first |eta - eta*| and the last,
    all in units of 2 / L.
    """

    def one(p):
        scale = 2 / jnp.max(p.eigenvalues)
        best = p.best_step_size(t)

        def body(k, state):
            eta, least, steepest = state
            slope = p.log_objective_slope(eta, t) * scale
            product = jnp.abs(slope * (eta - best)) / scale
            moved = eta - 0.05 * scale * slope / jnp.sqrt(k.astype(eta.dtype) + 1)
            after = jnp.minimum(least, product), jnp.maximum(steepest, jnp.abs(slope))
            return jnp.maximum(moved, 0), *after

        start = share * scale, jnp.asarray(jnp.inf), jnp.asarray(0.0)
        eta, least, steepest = jax.lax.fori_loop(0, META_STEPS, body, start)
        first, last = jnp.abs(share * scale - best), jnp.abs(eta - best)
        return least, steepest, first / scale, last / scale

    return eqx.filter_vmap(one)(problems)


@settings(max_examples=20)
@given(problems, st.integers(2, 2000), st.floats(0, 3))
def test_theorem_4_meta_gradient_descent_converges(drawn, t, share):
    # G is unimodal, (eta - eta*) G' >= 0. With d = |eta - eta*| and |G'| <= M on the way
    # d_{k+1}^2 <= d_k^2 - 2 c |G'| d_k / sqrt(k) + c^2 M^2 / k, and summed over K steps
    # the least |G'| d <= (d_1^2 + c^2 M^2 (1 + ln K)) / 2 c sum_k k^-1/2, which vanishes.
    least, steepest, first, last = map(
        np.asarray, _meta_descend(drawn, jnp.asarray(t), jnp.asarray(share))
    )
    c = 0.05
    spent = c**2 * steepest**2 * (1 + np.log(META_STEPS))
    # sum of k^-1/2 up to K is at least 2 sqrt(K) - 2.
    steps = 2 * c * (2 * np.sqrt(META_STEPS) - 2)
    assert np.all(least <= (first**2 + spent) / steps)
    assert np.all(last**2 <= first**2 + spent)


def test_meta_gradient_descent_ends_at_the_best_step_size():
    # Where the slope is clear on both sides: the 20-d instance, for 40 and for 1000 steps.
    for t in (40, 1000):
        one = jax.tree_util.tree_map(lambda x: x[None], _instance())
        *_, first, last = _meta_descend(one, jnp.asarray(t), jnp.asarray(0.2))
        assert float(first[0]) > 0.1 > 100 * float(last[0])


def test_the_best_step_size_depends_on_the_horizon():
    best = [float(_instance().best_step_size(t)) for t in (1, 3, 10, 100, 10_000)]
    assert len({round(b, 6) for b in best}) == 5
    # With one step it is the exact line search.
    p = _instance()
    c2 = np.asarray(p.coefficients) ** 2
    lam = np.asarray(p.eigenvalues)
    np.testing.assert_allclose(
        best[0], (c2 * lam**2).sum() / (c2 * lam**3).sum(), rtol=1e-9
    )
    # With one step it lies beyond 2 / L; in the end the extremes balance: 2 / (L + alpha).
    assert best[0] > 2 / lam[-1]
    np.testing.assert_allclose(best[-1], 2 / (lam[0] + lam[-1]), rtol=1e-3)


# The corollary: back-propagation through the log objective fails, and what cures it.

CASES = [(40, 0.1), (10, 1.0), (80, 1.0), (1000, 1.9), (80, 0.1)]


def _eta(t, eta, dtype):
    # The case of 1.9 is a share of the stable range, 1.9 / L.
    scale = 1 / float(_instance().eigenvalues[-1]) if eta == 1.9 else 1.0
    return jnp.asarray(eta * scale, dtype)


def _renormalised(dtype):
    problem = _instance(dtype)
    h = problem.eigenvalues
    return RenormalisedUnroll(
        start=lambda theta: problem.coefficients,
        linear=lambda theta, v: v - theta * h * v,
        energy=lambda v: 0.5 * jnp.sum(h * v**2),
    )


@pytest.mark.parametrize("t, eta", CASES)
def test_corollary_back_propagation_through_the_recursion_fails_and_the_cure_does_not(
    t, eta
):
    eta = _eta(t, eta, "float32")
    problem = _instance("float32")
    exact = _exact(problem, eta, t)[3]

    def plain(eta):
        step = lambda w, _: (w - eta * problem.eigenvalues * w, None)
        w, _ = jax.lax.scan(step, problem.coefficients, length=t)
        return jnp.log(0.5 * jnp.sum(problem.eigenvalues * w**2)) / t

    naive = float(jax.grad(plain)(eta))
    assert not np.isfinite(naive) or naive == 0
    cured = eqs.meta_gradient(
        _renormalised("float32"), eqs.FullBackprop(t, 1), eta, key=jr.key(0)
    )
    np.testing.assert_allclose(cured.gradient, exact, rtol=1e-4)
    assert cured.gradient.dtype == jnp.float32


def test_the_renormalised_unrolls_mean_loss_is_the_log_objective():
    eta = jnp.asarray(0.01)
    out = eqs.meta_gradient(
        _renormalised("float64"), eqs.FullBackprop(50, 1), eta, key=jr.key(0)
    )
    expected = _instance().log_objective(eta, 50)
    np.testing.assert_allclose(out.meta_loss, expected, rtol=1e-10)


@pytest.mark.parametrize(
    "estimator",
    [
        eqs.FullES(40, 400, 1e-4),
        eqs.PES(10, 400, 1e-4, eqs.ConstantLength(40), eqs.LockStep()),
        eqs.NRES(10, 400, 1e-4, eqs.ConstantLength(40), eqs.LockStep()),
        eqs.ForwardGradient(10, 1, length=eqs.ConstantLength(40), starts=eqs.LockStep()),
    ],
    ids=lambda e: type(e).__name__,
)
def test_every_estimator_takes_the_renormalised_unroll(estimator):
    eta = jnp.asarray(0.1)
    out = eqs.meta_gradient(
        _renormalised("float64"), estimator, eta, key=jr.key(0), windows=40
    )
    exact = float(_instance().log_objective_slope(eta, 40))
    np.testing.assert_allclose(out.gradient, exact, rtol=0.2)


def test_it_serves_the_noisy_quadratics_mean_dynamics():
    model = eqs.analysis.NoisyQuadratic(
        jnp.diag(jnp.array([2.0, 0.5])), jnp.zeros((2, 2)), jnp.array([1.0, 2.0])
    )
    unroll = RenormalisedUnroll(
        start=lambda theta: model.start,
        linear=lambda theta, v: model.transition(theta) @ v,
        energy=lambda v: 0.5 * v @ model.hessian @ v,
    )
    theta = eqs.analysis.LinearOptimizer(jnp.asarray(0.3), 0.1 * jnp.ones((2, 2)))
    out = eqs.meta_gradient(unroll, eqs.FullBackprop(30, 1), theta, key=jr.key(0))
    exact = jax.grad(lambda th: jnp.log(model.expected_loss(th, 30)) / 30)(theta)
    np.testing.assert_allclose(out.gradient.matrix, exact.matrix, rtol=1e-8)


def test_affine_noise_is_linear_in_the_augmented_state():
    # v' = a v + b in (v, 1), with the energy of its first entry.
    unroll = RenormalisedUnroll(
        start=lambda theta: jnp.array([1.0, 1.0]),
        linear=lambda theta, v: jnp.stack([theta * v[0] + 0.3 * v[1], v[1]]),
        energy=lambda v: v[0] ** 2,
    )

    def plain(a):
        v = 1.0
        for _ in range(12):
            v = a * v + 0.3
        return jnp.log(v**2) / 12

    out = eqs.meta_gradient(
        unroll, eqs.FullBackprop(12, 1), jnp.asarray(0.7), key=jr.key(0)
    )
    np.testing.assert_allclose(out.gradient, jax.grad(plain)(0.7), rtol=1e-9)


def test_meta_training_the_step_size_finds_the_best_one_by_the_cure_only():
    t, start = 80, jnp.asarray(0.1, jnp.float32)
    problem = _instance("float32")
    best = float(problem.best_step_size(t))
    train = lambda unroll: eqs.meta_train(
        unroll,
        eqs.FullBackprop(t, 1),
        start,
        optax.sgd(lambda k: 1e-2 / 100 / jnp.sqrt(k + 1.0)),
        steps=1000,
        key=jr.key(0),
        throw=False,
    )
    cured = train(_renormalised("float32"))
    np.testing.assert_allclose(cured.theta, best, rtol=0.02)
    naive = train(QuadraticDescent(problem.eigenvalues, problem.coefficients))
    # From .1, far beyond 2 / L, the naive objective overflows at once: nothing is learned.
    assert float(naive.theta) == float(start) or not np.isfinite(float(naive.theta))
