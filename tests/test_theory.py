"""The stability theory, against independent computations on thousands of drawn cases."""

import pathlib
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import equistar as eqs
from equistar.analysis import LinearOptimizer, NoisyQuadratic

from .helpers import windows


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
}


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
    inside = np.asarray(margin.sufficient) >= 0
    assert np.all(radius[inside] <= 1 + 1e-7)
    np.testing.assert_allclose(margin.exact, 1 - radius, atol=1e-6 * (1 + radius.max()))
    # Cases that were drawn inside are found inside, but for those on the very bound.
    if reach <= 1:
        assert np.all(margin.sufficient > -1e-7 * limit)


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
    assert np.all(radius[np.asarray(margin.sufficient) >= 0] <= 1 + 1e-7)
    np.testing.assert_allclose(margin.exact, 1 - radius, atol=1e-6 * (1 + radius.max()))
    if reach <= 1:
        assert np.all(margin.sufficient > -1e-7 * limit)


@settings(max_examples=30)
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
    assert np.all(radius[np.asarray(margin.sufficient) >= 0] <= 1 + 1e-7)
    np.testing.assert_allclose(margin.exact, 1 - radius, atol=1e-6 * (1 + radius.max()))
    if 0 < share < 1 and reach <= 1:
        assert np.all(margin.sufficient > -1e-6 * limit)


def test_where_lemma_3_promises_nothing_its_margin_is_not_positive():
    # Without them in the margin, each of these is inside of the two bounds on P.
    eye, one = jnp.eye(2), jnp.ones(2)
    beyond = eqs.analysis.disturbed_margin(eye, 3.0, -1.5 * eye, 0.01 * one, one)
    assert float(beyond.sufficient) == -1 and float(beyond.exact) < 0
    for d in (2 * one, -5 * one, 0 * one):
        with pytest.raises(ValueError, match="positive"):
            eqs.analysis.disturbed_margin(eye, 1.0, 0.9 * eye, d, one)
        traced = jax.jit(eqs.analysis.disturbed_margin)(eye, 1.0, 0.9 * eye, d, one)
        assert np.isnan(traced.sufficient)


@pytest.mark.parametrize("name", ["momentum_margin", "heavy_ball_margin"])
def test_a_momentum_that_does_not_decay_has_no_margin(name):
    compute = getattr(eqs.analysis, name)
    for decay in (1.0, 1.5, -0.1):
        with pytest.raises(ValueError, match="decay"):
            compute(jnp.eye(2), 0.1, decay)
        assert np.isnan(jax.jit(compute)(jnp.eye(2), 0.1, decay).sufficient)


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
    compute = jax.vmap(getattr(eqs.analysis, name), in_axes=(0, 0, None))
    margin = compute(h, share * limit, decay)
    # A double root moves by the square root of rounding.
    np.testing.assert_allclose(margin.exact, 1 - radius, atol=1e-6)
    clear = np.abs(np.asarray(margin.sufficient)) > 1e-3 * limit
    stable = np.asarray(margin.sufficient) > 0
    assert np.all((radius < 1)[clear] == stable[clear])


def test_theorem_1_fails_for_matrices_that_are_not_symmetric():
    # Diagonalisable, with real eigenvalues inside the stated bounds: not enough.
    rng = np.random.default_rng(0)
    n, cases = 2, 20_000
    q = np.linalg.qr(rng.standard_normal((cases, n, n)))[0]
    h = np.einsum("kij,kj,klj->kil", q, 10 ** rng.uniform(-2, 0, (cases, n)), q)
    limit = 2 / np.linalg.eigvalsh(h)[:, -1]
    alpha = rng.random(cases) * limit
    values = -alpha[:, None] + limit[:, None] * rng.random((cases, n))
    v = rng.standard_normal((cases, n, n))
    p = v @ (values[:, :, None] * np.linalg.inv(v))
    radius = _radius(np.eye(n) - (alpha[:, None, None] * np.eye(n) + p) @ h)
    # 12.1 %, with a standard error of a quarter of a percent.
    assert 0.11 < np.mean(radius > 1 + 1e-6) < 0.132
    with pytest.raises(ValueError, match="symmetric"):
        eqs.analysis.linear_margin(
            jnp.asarray(h[0]), jnp.asarray(alpha[0]), jnp.asarray(p[0])
        )


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
        first, *keys = jr.split(key, steps + 1)
        carry, losses = model.init(theta, key=first), []
        for k in keys:
            carry, loss = model.step(theta, carry, key=k)
            losses.append(loss)
        return carry, jnp.stack(losses)

    phi, losses = jax.jit(jax.vmap(run))(jr.split(jr.key(0), runs))
    error = np.std(losses, axis=0) / np.sqrt(runs)
    expected = np.array([model.expected_loss(theta, t) for t in range(steps)])
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
    c = np.asarray(model.stationary_covariance(theta))
    shock = (eye - a) @ np.asarray(model.noise) @ (eye - a).T
    np.testing.assert_allclose(c, a @ c @ a.T + shock, rtol=1e-7, atol=1e-9 * c.max())
    # It is the limit of the covariance, reached after so many steps that nothing is left.
    far = _moments(model, theta, jnp.asarray(10**7))[1]
    np.testing.assert_allclose(c, far, rtol=1e-6, atol=1e-8 * c.max())


def test_an_unstable_optimizer_has_no_stationary_covariance():
    model = NoisyQuadratic(jnp.diag(jnp.array([1.0, 2.0])), jnp.eye(2))
    theta = LinearOptimizer(jnp.asarray(1.01), jnp.zeros((2, 2)))
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
    steady = np.asarray(model.stationary_covariance(theta))
    bound = losses[0] + 0.5 * np.trace(np.asarray(model.hessian) @ steady)
    assert max(losses) <= bound * (1 + 1e-6)


def test_beyond_a_radius_of_one_the_loss_grows_without_bound():
    model = NoisyQuadratic(jnp.diag(jnp.array([1.0, 2.0])), jnp.eye(2))
    theta = LinearOptimizer(jnp.asarray(1.05), jnp.zeros((2, 2)))
    losses = [float(_moments(model, theta, jnp.asarray(t))[2]) for t in (10, 100, 1000)]
    assert losses[0] < 1e-3 * losses[1] < 1e-30 * losses[2]


# Meta-gradients on the model: the spec's exact gradient for estimators.

MODEL, THETA = _model(1, rho=0.8)
EPISODE = 8


def _exact():
    return jax.grad(lambda theta: MODEL.mean_loss(theta, EPISODE))(THETA)


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
    gradient = jax.grad(lambda th: model.mean_loss(th, 5))(theta)
    np.testing.assert_allclose(gradient.alpha, slope, rtol=1e-10)


_meta_slopes = eqx.filter_jit(
    lambda model, theta: eqx.filter_grad(lambda th: model.mean_loss(th, EPISODE))(theta)
)


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
    gradient = _meta_slopes(model, theta)
    tight = {"rtol": 1e-8, "atol": 1e-10 * np.abs(slope).max()}
    np.testing.assert_allclose(gradient.matrix, slope, **tight)
    np.testing.assert_allclose(gradient.alpha, np.trace(slope), **tight)


def test_back_propagation_is_the_exact_meta_gradient_without_noise():
    silent = NoisyQuadratic(MODEL.hessian, jnp.zeros((3, 3)), MODEL.start)
    exact = jax.grad(lambda theta: silent.mean_loss(theta, EPISODE))(THETA)
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


def test_the_page_on_theory_names_tests_and_functions_that_there_are():
    root = pathlib.Path(__file__).parents[1]
    page = (root / "docs" / "theory.md").read_text()
    parts = re.split(r"^## ", page, flags=re.M)[1:]
    assert len(parts) == 2
    for part in parts:
        file = re.search(r"test, in `(tests/\w+\.py)`", part)
        assert file is not None
        there = set(re.findall(r"^def (test_\w+)", (root / file[1]).read_text(), re.M))
        named = re.findall(r"`(test_[^`]*)`", part)
        assert named and set(named) <= there
        functions = re.findall(r"equistar\.analysis\.(\w+)", part)
        assert functions and all(hasattr(eqs.analysis, name) for name in functions)
