"""The stability theory, against independent computations on thousands of drawn cases."""

import fnmatch
import pathlib
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import equistar as eqs
from equistar.analysis import LinearOptimizer, NoisyQuadratic

from .helpers import equations, windows


# An example of hypothesis is a seed for so many cases at once, of one of these sizes.
CASES = 200
SIZES = (2, 3, 5)
seeds = st.integers(0, 2**31 - 1)


def _orthogonal(rng, n):
    return np.linalg.qr(rng.standard_normal((CASES, n, n)))[0]


def _symmetric(rng, n, low, high):
    """Symmetric matrices whose eigenvalues are drawn between `low` and `high`."""
    q = _orthogonal(rng, n)
    values = low[:, None] + (high - low)[:, None] * rng.random((CASES, n))
    # Bounds are where a theorem can fail: half of the cases touch one.
    values[: CASES // 4, 0] = low[: CASES // 4]
    values[CASES // 4 : CASES // 2, 0] = high[CASES // 4 : CASES // 2]
    return np.einsum("kij,kj,klj->kil", q, values, q)


def _hessians(rng, n):
    scale = 10 ** rng.uniform(-2, 2, CASES)
    low, high = scale * 10 ** rng.uniform(-4, 0, CASES), scale
    return _symmetric(rng, n, low, high)


def _radius(a):
    return np.abs(np.linalg.eigvals(a)).max(-1)


def _root(h, exponent):
    values, vectors = np.linalg.eigh(h)
    return np.einsum("kij,kj,klj->kil", vectors, values**exponent, vectors)


_margins = {
    name: jax.jit(jax.vmap(getattr(eqs.analysis, name)))
    for name in ("linear_margin", "preconditioned_margin", "disturbed_margin")
} | {
    name: jax.jit(jax.vmap(getattr(eqs.analysis, name), in_axes=(0, 0, None)))
    for name in ("momentum_margin", "heavy_ball_margin")
}


def _check(margin, radius, limit, reach, share=0.5):
    """A bound is sound; its exact margin is 1 - rho; it finds what is inside of it."""
    sufficient = np.asarray(margin.sufficient)
    assert np.all(radius[sufficient >= 0] <= 1 + 1e-7)
    np.testing.assert_allclose(margin.exact, 1 - radius, atol=1e-6 * (1 + radius.max()))
    # So many cases touch a bound: within it they are inside, beyond it they are not.
    if reach <= 1:
        assert np.all(sufficient > -1e-7 * limit)
    # At either end of alpha's range a bound is zero, and `reach` does not move it.
    if reach > 1.01 and 0.01 <= share <= 0.99:
        assert np.mean(sufficient < 0) >= 0.5


@settings(max_examples=30)
@given(seeds, st.sampled_from(SIZES), st.floats(0, 1), st.floats(0.5, 2))
def test_inside_the_bound_of_theorem_1_the_optimizer_is_stable(seed, n, share, reach):
    rng = np.random.default_rng(seed)
    h = _hessians(rng, n)
    limit = 2 / np.linalg.eigvalsh(h)[:, -1]
    alpha = share * limit
    p = _symmetric(rng, n, -alpha * reach, (limit - alpha) * reach)
    margin = _margins["linear_margin"](h, alpha, p)
    radius = _radius(np.eye(n) - (alpha[:, None, None] * np.eye(n) + p) @ h)
    _check(margin, radius, limit, reach, share)


@settings(max_examples=30)
@given(seeds, st.sampled_from(SIZES), st.floats(0, 1), st.floats(0.5, 2))
def test_inside_the_bound_of_lemma_2_the_preconditioned_optimizer_is_stable(
    seed, n, share, reach
):
    rng = np.random.default_rng(seed)
    h = _hessians(rng, n)
    limit = 2 / np.sqrt(np.linalg.eigvalsh(h)[:, -1])
    alpha = share * limit
    p = _symmetric(rng, n, -alpha * reach, (limit - alpha) * reach)
    margin = _margins["preconditioned_margin"](h, alpha, p)
    shifted = alpha[:, None, None] * np.eye(n) + p
    radius = _radius(np.eye(n) - _root(h, -0.5) @ shifted @ h)
    _check(margin, radius, limit, reach, share)


# The nominal step is drawn beyond its bounds too: Lemma 3 is false there.
@settings(max_examples=40)
@given(seeds, st.sampled_from((2, 4, 6)), st.floats(-0.5, 1.5), st.floats(0.5, 2))
def test_inside_the_bound_of_lemma_3_every_disturbance_is_survived(seed, n, share, reach):
    rng = np.random.default_rng(seed)
    h = _hessians(rng, n)
    limit = 2 / np.linalg.eigvalsh(h)[:, -1]
    alpha = share * limit
    # D and P commute where D is constant on the blocks of P.
    half = n // 2
    dbar = 10 ** rng.uniform(-1, 1, (CASES, 2))
    d = dbar * rng.uniform(0.01, 1, (CASES, 2))
    worst = dbar.max(1)
    p = np.zeros((CASES, n, n))
    for block in (slice(0, half), slice(half, n)):
        size = block.stop - block.start
        p[:, block, block] = _symmetric(
            rng, size, -alpha / worst * reach, (limit - alpha) / worst * reach
        )
    spread = lambda x: np.repeat(x, [half, n - half], axis=1)
    margin = _margins["disturbed_margin"](h, alpha, p, spread(d), spread(dbar))
    disturbed = spread(d)[:, :, None] * p
    radius = _radius(np.eye(n) - (alpha[:, None, None] * np.eye(n) + disturbed) @ h)
    if 0.01 <= share <= 0.99:
        _check(margin, radius, limit / worst.clip(1), reach)
    elif not -0.01 <= share <= 1.01:
        assert np.all(np.asarray(margin.sufficient) < 0)


@settings(max_examples=30)
@given(seeds, st.floats(0, 0.999), st.floats(-0.2, 2.5))
@pytest.mark.parametrize("average", [True, False], ids=["average", "heavy ball"])
def test_the_bound_of_momentum_is_where_the_companion_matrix_turns_unstable(
    average, seed, decay, share
):
    rng = np.random.default_rng(seed)
    n = 3
    h = _symmetric(rng, n, np.full(CASES, 0.1), np.full(CASES, 2.0))
    weight = 1 - decay if average else 1.0
    limit = 2 * (1 + decay) / (weight * np.linalg.eigvalsh(h)[:, -1])
    a = (share * limit)[:, None, None]
    eye = np.broadcast_to(np.eye(n), h.shape)
    momentum = np.concatenate([weight * h, decay * eye], axis=2)
    params = np.concatenate([eye, 0 * eye], axis=2) - a * momentum
    radius = _radius(np.concatenate([params, momentum], axis=1))
    name = "momentum_margin" if average else "heavy_ball_margin"
    margin = _margins[name](h, share * limit, decay)
    # A double root moves by the square root of rounding.
    np.testing.assert_allclose(margin.exact, 1 - radius, atol=1e-6)
    clear = np.abs(np.asarray(margin.sufficient)) > 1e-3 * limit
    stable = np.asarray(margin.sufficient) > 0
    assert np.all((radius < 1)[clear] == stable[clear])


@pytest.mark.parametrize("name", ["linear_margin", "preconditioned_margin"])
@pytest.mark.parametrize("end", [0, 1], ids=["low", "high"])
def test_beyond_a_bound_by_a_thousandth_there_is_a_matrix_that_diverges(name, end):
    # So the bounds of Theorem 1 and Lemma 2 are as wide as bounds on eigenvalues can be:
    # P has the direction of the largest curvature and the eigenvalue beyond the bound.
    h, alpha = np.diag([0.3, 4.0]), 0.1
    limit = 2 / (4.0 if name == "linear_margin" else 4.0**0.5)
    for beyond in (-1e-3, 1e-3):
        value = limit - alpha + beyond if end else -alpha - beyond
        p = np.diag([0.0, value])[None]
        margin = _margins[name](h[None], np.array([alpha]), p)
        assert np.sign(margin.sufficient[0]) == np.sign(margin.exact[0]) == -np.sign(beyond)
        np.testing.assert_allclose(abs(margin.sufficient[0]), 1e-3, rtol=1e-9)


def test_lemma_3_is_false_without_its_bound_on_the_nominal_step():
    # The bounds on P alone would say .3 inside: d = .01 leaves alpha I, which climbs.
    h, d = jnp.diag(jnp.array([1.0, 0.5])), jnp.full(2, 0.01)
    margin = eqs.analysis.disturbed_margin(h, -0.5, 0.8 * jnp.eye(2), d, jnp.ones(2))
    np.testing.assert_allclose(margin.sufficient, -0.5)
    np.testing.assert_allclose(margin.exact, -0.492)


def test_momentums_margins_have_derivatives_on_both_sides_of_the_double_root():
    # rho = sqrt(decay) where the roots are complex: the slope is -1 / (2 sqrt(decay)).
    h = jnp.eye(1)
    slope = jax.grad(lambda b: eqs.analysis.heavy_ball_margin(h, 1.0, b).exact)
    np.testing.assert_allclose(slope(0.81), -1 / 1.8, rtol=1e-12)
    # Real roots of z^2 - (1 + b - a) z + b at a = .1: by a central difference.
    exact = lambda b: eqs.analysis.heavy_ball_margin(h, 0.1, b).exact
    difference = (exact(0.2 + 1e-6) - exact(0.2 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(exact)(0.2), difference, rtol=1e-6)
    # Without momentum rho = |1 - a|, whose slope in a is 1 below 1.
    plain = jax.grad(lambda a: eqs.analysis.heavy_ball_margin(h, a, 0.0).exact)
    np.testing.assert_allclose(plain(0.1), 1, rtol=1e-12)


_H, _ONES = jnp.eye(2), jnp.ones(2)
_SKEW = jnp.array([[0.0, 1.0], [-1.0, 0.0]])


_LARGE_BESIDE_SKEW = jnp.zeros((3, 3)).at[0, 0].set(1e6).at[1:, 1:].set(_SKEW)


OUTSIDE = [
    ("linear_margin", (_H, 1.0, _SKEW), "symmetric"),
    ("linear_margin", (_H + _SKEW, 1.0, _H), "symmetric"),
    ("linear_margin", (-_H, 1.0, _H), "positive"),
    ("preconditioned_margin", (_H, 1.0, _SKEW), "symmetric"),
    ("disturbed_margin", (_H, 1.0, _H, 2 * _ONES, _ONES), "disturbance"),
    ("disturbed_margin", (_H, 1.0, _H, 0 * _ONES, _ONES), "disturbance"),
    (
        "disturbed_margin",
        (_H, 1.0, _H + 0.1, jnp.array([0.5, 1.0]), _ONES),
        "commute",
    ),
    ("momentum_margin", (_H, 1.0, 1.0), "decay"),
    # What is small beside another block is no rounding of that block.
    ("linear_margin", (jnp.diag(jnp.array([1e6, -5.0])), 1e-6, _H), "positive"),
    ("linear_margin", (jnp.eye(3), 0.0, _LARGE_BESIDE_SKEW), "symmetric"),
    ("heavy_ball_margin", (_H, 1.0, -0.1), "decay"),
]


@pytest.mark.parametrize("name, arguments, message", OUTSIDE)
def test_cases_outside_of_a_theorems_hypotheses_are_refused(name, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(eqs.analysis, name)(*arguments)


@pytest.mark.parametrize("name, arguments, message", OUTSIDE)
def test_inside_of_jit_their_margins_are_nan(name, arguments, message):
    margin = jax.jit(getattr(eqs.analysis, name))(*arguments)
    assert np.isnan(margin.sufficient) and np.isnan(margin.exact)


# LAPACK gives [nan, 4] for it, as if 4 were the largest eigenvalue.
@pytest.mark.parametrize(
    "name, arguments",
    [
        ("linear_margin", (0.1, jnp.zeros((2, 2)))),
        ("preconditioned_margin", (0.1, jnp.zeros((2, 2)))),
        ("disturbed_margin", (0.1, jnp.zeros((2, 2)), _ONES, _ONES)),
        ("momentum_margin", (0.1, 0.9)),
        ("heavy_ball_margin", (0.1, 0.9)),
    ],
)
def test_of_a_hessian_that_is_not_a_number_neither_margin_is(name, arguments):
    hessian = jnp.diag(jnp.array([jnp.nan, 4.0]))
    margin = getattr(eqs.analysis, name)(hessian, *arguments)
    assert np.isnan(margin.sufficient) and np.isnan(margin.exact)


def _on_a_model(method, *arguments):
    def certified(x):
        model = NoisyQuadratic(x, x, _ONES, 0.5)
        return getattr(model, method)(LinearOptimizer(jnp.asarray(0.1), x), *arguments)

    return certified


def _descent(inputs):
    problem = eqs.analysis.LeastSquares(inputs, inputs[:, 0], inputs[0])
    return problem.loss(eqs.analysis.descent_iterates(problem, 0.1 * _ONES, 3))


CERTIFICATES = {
    "linear_margin": lambda x: eqs.analysis.linear_margin(x, 0.1, x),
    "preconditioned_margin": lambda x: eqs.analysis.preconditioned_margin(x, 0.1, x),
    "disturbed_margin": lambda x: eqs.analysis.disturbed_margin(x, 0.1, x, x[0], x[0]),
    "momentum_margin": lambda x: eqs.analysis.momentum_margin(x, 0.1, 0.9),
    "heavy_ball_margin": lambda x: eqs.analysis.heavy_ball_margin(x, 0.1, 0.9),
    "mean": _on_a_model("mean", 3),
    "covariance": _on_a_model("covariance", 3),
    "expected_loss": _on_a_model("expected_loss", 3),
    "mean_loss": _on_a_model("mean_loss", 3),
    "meta_gradient": _on_a_model("meta_gradient", 3),
    "stationary_covariance": _on_a_model("stationary_covariance"),
    "descent_iterates": _descent,
    "descent_iterates from few samples": lambda x: _descent(x[:1]),
    "draw_least_squares": lambda x: (
        eqs.analysis.draw_least_squares(2, 2, x[0, 0], key=jr.key(0)).targets
    ),
}


# By default products of float32 are of TF32 on a GPU, and the sign of a margin is wrong.
@pytest.mark.parametrize("name", CERTIFICATES)
def test_no_product_of_a_certificate_is_in_less_than_its_own_precision(name):
    # The derivative computes the value as well.
    program = jax.make_jaxpr(jax.jacfwd(lambda x: jtu.tree_leaves(CERTIFICATES[name](x))))
    made = list(equations(program(_H).jaxpr))
    precisions = [e.params["precision"] for e in made if e.primitive.name == "dot_general"]
    assert set(precisions) == {(jax.lax.Precision.HIGHEST,) * 2}


def test_theorem_1_fails_for_matrices_that_are_not_symmetric():
    # Diagonalisable, with real eigenvalues inside the stated bounds: not enough.
    rng = np.random.default_rng(0)
    n, cases = 2, 20_000
    q = np.linalg.qr(rng.standard_normal((cases, n, n)))[0]
    h = np.einsum("kij,kj,klj->kil", q, 10 ** rng.uniform(-2, 0, (cases, n)), q)
    limit = 2 / np.linalg.eigvalsh(h)[:, -1]
    alpha = rng.random(cases) * limit
    values = -alpha[:, None] + limit[:, None] * rng.random((cases, n))
    shifted = lambda v: (
        alpha[:, None, None] * np.eye(n) + v @ (values[:, :, None] * np.linalg.inv(v))
    )
    unstable = lambda v: _radius(np.eye(n) - shifted(v) @ h) > 1 + 1e-6
    # Of four seeds: 11.8 to 12.2 %; a share of 20,000 has a standard error of .23 %.
    found = np.mean(unstable(rng.standard_normal((cases, n, n))))
    assert abs(found - 0.12) < 4 * 0.0023 + 0.002
    # The same spectra with orthogonal eigenvectors: not one.
    assert not np.any(unstable(q[::-1]))


def test_the_counterexample_of_the_page_on_theory():
    h = jnp.array([[1.0, 0.5], [0.5, 1.0]])
    alpha, p = 0.5, jnp.array([[0.5, -4.0], [0.0, 0.0]])
    # Two distinct real eigenvalues, 0 and 1/2, well inside [-alpha, 2 / 1.5 - alpha].
    np.testing.assert_allclose(np.linalg.eigvalsh(h), [0.5, 1.5])
    np.testing.assert_allclose(sorted(np.linalg.eigvals(p)), [0, 0.5])
    assert -alpha < 0 < 0.5 < 2 / 1.5 - alpha
    # z^2 + z / 2 + 3 / 8 = 0 for the eigenvalues z of (alpha I + P) H: |1 - z|^2 = 15 / 8.
    radius = _radius(np.eye(2) - np.asarray((alpha * jnp.eye(2) + p) @ h))
    np.testing.assert_allclose(radius, (15 / 8) ** 0.5, rtol=1e-12)


def _model(seed, n=3, noise=1.0, rho=0.95):
    """A model and an optimizer of a drawn spectral radius, by a symmetric P."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    h = (q * rng.uniform(0.1, 2, n)) @ q.T
    root = np.linalg.cholesky(h)
    # A is similar to I - R' M R with H = R R'.
    s = np.linalg.qr(rng.standard_normal((n, n)))[0]
    wanted = (s * rng.uniform(-rho, rho, n)) @ s.T
    inverse = np.linalg.inv(root)
    m = inverse.T @ (np.eye(n) - wanted) @ inverse
    covariance = noise**2 * (lambda b: b @ b.T)(rng.standard_normal((n, n)))
    model = NoisyQuadratic(
        jnp.asarray(h), jnp.asarray(covariance), jnp.asarray(rng.standard_normal(n)), 0.5
    )
    return model, LinearOptimizer(jnp.asarray(0.1), jnp.asarray(m - 0.1 * np.eye(n)))


_moments = eqx.filter_jit(
    lambda model, theta, t: (
        model.mean(theta, t),
        model.covariance(theta, t),
        model.expected_loss(theta, t),
    )
)
_stationary = eqx.filter_jit(lambda model, theta: model.stationary_covariance(theta))


@settings(max_examples=50)
@given(seeds, st.integers(0, 300), st.floats(0.1, 1.1))
def test_the_closed_form_is_the_recursion(seed, t, rho):
    model, theta = _model(seed, rho=rho)
    a, h = np.asarray(model.transition(theta)), np.asarray(model.hessian)
    s, eye = np.asarray(model.noise), np.eye(3)
    mean, covariance = np.asarray(model.start), 0.25 * eye
    for _ in range(t):
        mean = a @ mean
        covariance = a @ covariance @ a.T + (eye - a) @ s @ (eye - a).T
    loss = 0.5 * (mean @ h @ mean + np.trace(h @ (covariance + s)))
    close = lambda x, y: np.testing.assert_allclose(
        x, y, rtol=1e-8, atol=1e-9 * (1e-9 + np.abs(y).max())
    )
    for ours, theirs in zip(
        _moments(model, theta, jnp.asarray(t)), (mean, covariance, loss), strict=True
    ):
        close(ours, theirs)


def test_the_closed_form_is_monte_carlo_within_its_error():
    model, theta = _model(0)
    runs, steps = 20_000, 12

    def run(key):
        first, rest = jr.split(key)
        body = lambda carry, k: model.step(theta, carry, key=k)
        return jax.lax.scan(body, model.init(theta, key=first), jr.split(rest, steps))

    phi, losses = jax.jit(jax.vmap(run))(jr.split(jr.key(0), runs))
    error = np.std(losses, axis=0) / np.sqrt(runs)
    expected = [_moments(model, theta, jnp.asarray(t))[2] for t in range(steps)]
    assert np.all(np.abs(np.mean(np.asarray(losses), axis=0) - expected) < 4 * error)
    np.testing.assert_allclose(model.mean_loss(theta, steps), np.mean(expected), rtol=1e-10)
    mean, covariance, _ = _moments(model, theta, jnp.asarray(steps))
    assert np.all(np.abs(np.mean(phi, 0) - mean) < 4 * np.std(phi, 0) / np.sqrt(runs))
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.all(
        np.abs(np.cov(np.asarray(phi).T) - covariance) < 4 * scale * np.sqrt(2 / runs)
    )


@settings(max_examples=30)
@given(seeds, st.floats(0.05, 0.9999))
def test_the_stationary_covariance_solves_lyapunovs_equation(seed, rho):
    model, theta = _model(seed, rho=rho)
    a, eye = np.asarray(model.transition(theta)), np.eye(3)
    c = np.asarray(_stationary(model, theta))
    shock = (eye - a) @ np.asarray(model.noise) @ (eye - a).T
    np.testing.assert_allclose(c, a @ c @ a.T + shock, rtol=1e-7, atol=1e-9 * c.max())
    # It is the limit of the covariance, reached after so many steps that nothing is left.
    far = _moments(model, theta, jnp.asarray(10**7))[1]
    np.testing.assert_allclose(c, far, rtol=1e-6, atol=1e-8 * c.max())


# Adam's and heavy ball's usual decays, where the discriminant is a difference of numbers
# that are nearly equal.
@pytest.mark.parametrize("decay", [0.9, 0.999, 0.9999])
@pytest.mark.parametrize("gain", [0.0, 1e-12, 1e-8, 2e-6, 1e-3, 1.0, 1.5, 3.9, 4.5])
def test_momentums_exact_margin_is_right_where_the_decay_is_near_one(decay, gain):
    hessian = jnp.full((1, 1), gain, jnp.float32)
    exact = eqs.analysis.heavy_ball_margin(hessian, 1.0, jnp.float32(decay)).exact
    gain, decay = (mpmath.mpf(float(np.float32(x))) for x in (gain, decay))
    with mpmath.workdps(50):
        trace = 1 + decay - gain
        root = mpmath.sqrt(trace**2 - 4 * decay)
        truth = float(1 - max(abs(trace + root), abs(trace - root)) / 2)
    assert exact.dtype == jnp.float32
    np.testing.assert_allclose(exact, truth, rtol=2e-3, atol=1e-20)


def test_at_a_radius_of_one_to_rounding_there_is_no_stationary_covariance():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
        hessian = basis * np.array([0.0, 0.5, 1.0, 1.5]) @ basis.T
        for dtype in (jnp.float32, jnp.float64):
            noise, still = jnp.eye(4, dtype=dtype), jnp.zeros((4, 4), dtype)
            model = NoisyQuadratic(jnp.asarray(hessian, dtype), noise)
            theta = LinearOptimizer(jnp.asarray(0.5, dtype), still)
            assert np.all(np.isnan(model.stationary_covariance(theta)))


def test_an_unstable_optimizer_has_no_stationary_covariance():
    model = NoisyQuadratic(jnp.diag(jnp.array([1.0, 2.0])), jnp.eye(2))
    theta = LinearOptimizer(jnp.asarray(1.01), jnp.zeros((2, 2)))
    assert np.all(np.isnan(model.stationary_covariance(theta)))
    # At rho = 1 of I - Q H = ones / 4, of which no power has an entry above 1/4.
    model = NoisyQuadratic(jnp.eye(4), jnp.eye(4))
    theta = LinearOptimizer(jnp.asarray(0.0), jnp.eye(4) - jnp.ones((4, 4)) / 4)
    np.testing.assert_allclose(model.transition(theta), jnp.ones((4, 4)) / 4, atol=1e-15)
    assert np.all(np.isnan(model.stationary_covariance(theta)))


@settings(max_examples=50)
@given(seeds, st.integers(0, 200), st.floats(0.05, 1.2))
def test_noise_only_adds_loss_lemma_4(seed, t, rho):
    model, theta = _model(seed, rho=rho)
    silent = NoisyQuadratic(
        model.hessian, jnp.zeros((3, 3)), model.start, model.start_scale
    )
    noisy = _moments(model, theta, jnp.asarray(t))[2]
    assert _moments(silent, theta, jnp.asarray(t))[2] <= noisy * (1 + 1e-9)


@settings(max_examples=50)
@given(seeds, st.floats(0.05, 0.999))
def test_below_a_radius_of_one_the_loss_is_bounded_for_all_times_lemma_5(seed, rho):
    model, theta = _model(seed, rho=rho)
    times = [0, 1, 10, 1000, 10**6, 2**30]
    losses = [float(_moments(model, theta, jnp.asarray(t))[2]) for t in times]
    # A is similar to a symmetric matrix by a root of H, so E phi' H phi does not grow, and
    # the noise adds no more than in the steady state.
    steady = np.asarray(_stationary(model, theta))
    bound = losses[0] + 0.5 * np.trace(np.asarray(model.hessian) @ steady)
    assert max(losses) <= bound * (1 + 1e-6)


def test_beyond_a_radius_of_one_the_loss_grows_without_bound():
    model = NoisyQuadratic(jnp.diag(jnp.array([1.0, 2.0])), jnp.eye(2))
    theta = LinearOptimizer(jnp.asarray(1.05), jnp.zeros((2, 2)))
    losses = [float(_moments(model, theta, jnp.asarray(t))[2]) for t in (10, 100, 1000)]
    assert losses[0] < 1e-3 * losses[1] < 1e-30 * losses[2]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_what_overflows_is_infinite_and_only_where_it_is_felt(dtype):
    number = lambda x: jnp.asarray(x, dtype)
    model = NoisyQuadratic(number([[1.1, 0.6], [0.6, 0.5]]), jnp.eye(2, dtype=dtype))
    diverging = LinearOptimizer(number(5.0), jnp.zeros((2, 2), dtype))
    for t in (500, 1000, 10**6):
        assert _moments(model, diverging, jnp.asarray(t))[2] == jnp.inf
    assert model.mean_loss(diverging, 1000) == jnp.inf
    # The second coordinate grows by -3.5 a step, and nothing is there to grow.
    eye, nothing = jnp.eye(2, dtype=dtype), jnp.zeros((2, 2), dtype)
    still = NoisyQuadratic(eye, nothing, number([1, 0]))
    theta = LinearOptimizer(number(0.5), jnp.diag(number([0.0, 4.0])))
    for t in (50, 100, 600):
        mean, _, loss = _moments(still, theta, jnp.asarray(t))
        half = number(0.5) ** t
        np.testing.assert_allclose(mean, [float(half), 0.0], rtol=1e-5)
        np.testing.assert_allclose(loss, 0.5 * half**2, rtol=1e-5)
    np.testing.assert_allclose(still.mean_loss(theta, 600), 2 / 3 / 600, rtol=1e-5)


def test_what_is_not_a_number_stays_so():
    model = NoisyQuadratic(jnp.eye(2), jnp.eye(2))
    theta = LinearOptimizer(jnp.asarray(jnp.nan), jnp.zeros((2, 2)))
    assert np.isnan(_moments(model, theta, jnp.asarray(3))[2])


# Meta-gradients on the model: the spec's exact gradient for estimators.

MODEL, THETA = _model(1, rho=0.8)
EPISODE = 8


def _exact():
    return MODEL.meta_gradient(THETA, EPISODE)


def test_the_meta_gradient_is_a_central_difference_of_the_mean_loss():
    gradient, h = _exact(), 1e-5
    loss = jax.jit(
        lambda matrix: MODEL.mean_loss(LinearOptimizer(THETA.alpha, matrix), EPISODE)
    )
    for i in range(3):
        for j in range(3):
            high, low = (loss(THETA.matrix.at[i, j].add(x)) for x in (h, -h))
            slope = (high - low) / (2 * h)
            np.testing.assert_allclose(gradient.matrix[i, j], slope, rtol=1e-6, atol=1e-8)
    # alpha shifts the diagonal of P.
    np.testing.assert_allclose(gradient.alpha, np.trace(gradient.matrix), rtol=1e-9)


_meta_gradient = eqx.filter_jit(lambda model, theta: model.meta_gradient(theta, EPISODE))


@settings(max_examples=30)
@given(seeds, st.floats(0.1, 1.1))
def test_the_meta_gradient_is_that_of_the_adjoint_recursion(seed, rho):
    # With M_t = E phi phi', K = (alpha I + P) H and A = I - K:
    # M_{t+1} = A M_t A' + K S K',  L_t = H / 2T + A' L_{t+1} A from L_T = 0,
    # d/dP = -2 sum_t L_{t+1} (A M_t - K S) H.
    model, theta = _model(seed, rho=rho)
    h, s = np.asarray(model.hessian), np.asarray(model.noise)
    k = np.asarray(theta.preconditioner()) @ h
    a = np.eye(3) - k
    moments = [np.outer(model.start, model.start) + model.start_scale**2 * np.eye(3)]
    for _ in range(EPISODE - 1):
        moments.append(a @ moments[-1] @ a.T + k @ s @ k.T)
    adjoint, slope = np.zeros((3, 3)), np.zeros((3, 3))
    for moment in reversed(moments):
        slope -= 2 * adjoint @ (a @ moment - k @ s) @ h
        adjoint = h / (2 * EPISODE) + a.T @ adjoint @ a
    gradient = _meta_gradient(model, theta)
    tight = {"rtol": 1e-8, "atol": 1e-10 * np.abs(slope).max()}
    np.testing.assert_allclose(gradient.matrix, slope, **tight)
    np.testing.assert_allclose(gradient.alpha, np.trace(slope), **tight)


def test_in_one_dimension_the_meta_gradient_is_the_hand_made_one():
    # l_t: h/2 ((1 - mh)^(2t) phi^2 + c_t + s), with c_{t+1} = a^2 c_t + (mh)^2 s.
    h, s, m, phi = 1.5, 0.7, 0.4, 2.0
    model = NoisyQuadratic(jnp.array([[h]]), jnp.array([[s]]), jnp.array([phi]))
    theta = LinearOptimizer(jnp.asarray(m), jnp.zeros((1, 1)))
    a, slope, c, dc = 1 - m * h, 0.0, 0.0, 0.0
    for t in range(5):
        first = 2 * t * a ** (2 * t - 1) * -h * phi**2 if t else 0.0
        slope += h / 2 * (first + dc) / 5
        c, dc = (
            a**2 * c + (m * h) ** 2 * s,
            a**2 * dc - 2 * a * h * c + 2 * m * h**2 * s,
        )
    gradient = model.meta_gradient(theta, 5)
    np.testing.assert_allclose(gradient.alpha, slope, rtol=1e-10)


def test_the_mean_loss_is_linear_in_the_noise_and_so_is_its_derivative():
    # Also where the eigenvalues of S meet, and at no noise at all.
    def loss(s):
        model = NoisyQuadratic(MODEL.hessian, s * jnp.eye(3), MODEL.start)
        return model.mean_loss(THETA, EPISODE)

    slopes = [jax.grad(loss)(s) for s in (0.0, 1.0)]
    np.testing.assert_allclose(slopes, loss(1.0) - loss(0.0), rtol=1e-10)


def test_a_number_for_the_nominal_step_is_not_differentiated():
    gradient = MODEL.meta_gradient(LinearOptimizer(0.1, THETA.matrix), EPISODE)
    assert gradient.alpha is None
    np.testing.assert_allclose(gradient.matrix, _exact().matrix, rtol=1e-12)


def test_back_propagation_is_the_exact_meta_gradient_without_noise():
    silent = NoisyQuadratic(MODEL.hessian, jnp.zeros((3, 3)), MODEL.start)
    exact = silent.meta_gradient(THETA, EPISODE)
    for estimator in (
        eqs.FullBackprop(EPISODE, 1),
        eqs.ForwardGradient(
            EPISODE, 1, length=eqs.ConstantLength(EPISODE), starts=eqs.LockStep()
        ),
    ):
        out = eqs.meta_gradient(silent, estimator, THETA, key=jr.key(0))
        for ours, theirs in zip(
            jtu.tree_leaves(out.gradient), jtu.tree_leaves(exact), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.parametrize(
    "estimator",
    [
        eqs.FullBackprop(EPISODE, 100),
        eqs.FullES(EPISODE, 100, 1e-3),
        eqs.PES(3, 100, 1e-3, eqs.ConstantLength(EPISODE)),
        eqs.NRES(3, 100, 1e-3, eqs.ConstantLength(EPISODE)),
        eqs.PESAnalytic(3, 100, 1e-3, eqs.ConstantLength(EPISODE)),
        eqs.ForwardGradient(3, 100, length=eqs.ConstantLength(EPISODE)),
    ],
    ids=lambda e: type(e).__name__,
)
def test_estimators_agree_with_the_exact_meta_gradient_of_the_noisy_quadratic(estimator):
    out = windows(MODEL, estimator, THETA, jr.key(1), 640)
    for ours, theirs in zip(
        jtu.tree_leaves(out.gradient), jtu.tree_leaves(_exact()), strict=True
    ):
        blocks = np.asarray(ours)[16:].reshape(26, 24, *ours.shape[1:]).mean(1)
        error = blocks.std(0, ddof=1) / np.sqrt(26)
        assert np.all(np.abs(blocks.mean(0) - theirs) < 4.5 * error)
        assert np.all(error < 0.3 * np.abs(np.asarray(theirs)).max())


def test_truncated_estimates_are_biased_on_the_noisy_quadratic():
    estimator = eqs.TruncatedBackprop(3, 100, eqs.ConstantLength(EPISODE))
    out = windows(MODEL, estimator, THETA, jr.key(1), 640)
    blocks = np.asarray(out.gradient.matrix)[16:].reshape(26, 24, 3, 3).mean(1)
    error = blocks.std(0, ddof=1) / np.sqrt(26)
    assert np.max(np.abs(blocks.mean(0) - _exact().matrix) / error) > 20


def test_the_papers_instance_has_its_eigenvalues():
    values = np.linalg.eigvalsh(eqs.analysis.star_quadratic().hessian)
    np.testing.assert_allclose(values, [0.12527, 1.47073], rtol=1e-4)


def test_the_page_on_theory_names_tests_that_exist():
    folder = pathlib.Path(__file__).parent
    page = (folder.parent / "docs" / "theory.md").read_text()
    tests = "".join(p.read_text() for p in folder.glob("test_*.py"))
    known = re.findall(r"^def (test_\w+)", tests, re.M)
    named = re.findall(r"`(test_[\w.]+)`", page)
    assert len(named) >= 20
    for name in named:
        if not name.endswith(".py"):
            assert fnmatch.filter(known, name.replace("...", "*")), name
