"""Noise, pairs, shaping, rematerialisation, control variates, forward mode."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest

import equistar as eqs

from .helpers import LinearWalk, QuadraticDescent, windows


UNROLL = QuadraticDescent(jnp.array([1.0, 0.3]), jnp.array([1.0, 2.0]))
LENGTH = eqs.ConstantLength(12)


class _Recurrence(eqs.AbstractUnroll):
    """A noisy nonlinear recurrence, whose start depends on theta too."""

    def init(self, theta, *, key):
        return {"h": theta["w"][0] + 0.1 * jr.normal(key, (2,)), "t": jnp.zeros((), int)}

    def step(self, theta, carry, *, key):
        drive = jr.normal(key, (2,))
        h = jnp.tanh(theta["w"] @ carry["h"] + theta["b"] * drive)
        loss = jnp.sum((h - theta["b"]) ** 2) + 0.01 * carry["t"].astype(h.dtype)
        return {"h": h, "t": carry["t"] + 1}, loss


THETA = {"w": jnp.array([[0.5, -0.3], [0.2, 0.8]]), "b": jnp.array(0.4), "n": 3}


@pytest.mark.parametrize("window", [5, 30])
def test_forward_mode_agrees_with_back_propagation_through_whole_episodes(window):
    forward = eqs.ForwardGradient(window, 100, length=LENGTH)
    out = windows(_Recurrence(), forward, THETA, jr.key(0), 240)
    full = windows(_Recurrence(), eqs.FullBackprop(12, 100), THETA, jr.key(1), 100)
    assert out.gradient["n"] is None
    for ours, theirs in zip(
        jtu.tree_leaves(out.gradient), jtu.tree_leaves(full.gradient), strict=True
    ):
        blocks = np.asarray(ours)[24:].reshape(18, 12, *ours.shape[1:]).mean(1)
        variance = blocks.var(0, ddof=1) / 18 + theirs.var(0, ddof=1) / 100
        assert np.all(np.abs(blocks.mean(0) - theirs.mean(0)) < 4 * np.sqrt(variance))
        assert np.all(np.sqrt(variance) < 0.02)


def test_forward_mode_is_the_analytic_gradient_of_the_quadratic():
    theta = jnp.asarray(0.3)
    exact = eqs.meta_gradient(UNROLL, eqs.FullBackprop(12, 1), theta, key=jr.key(0))
    for window, number in [(12, 1), (5, 12), (4, 3)]:
        forward = eqs.ForwardGradient(window, 2, length=LENGTH, starts=eqs.LockStep())
        out = eqs.meta_gradient(UNROLL, forward, theta, key=jr.key(0), windows=number)
        np.testing.assert_allclose(out.gradient, exact.gradient, rtol=1e-12)
        np.testing.assert_allclose(out.meta_loss, exact.meta_loss, rtol=1e-12)


def test_random_directions_are_unbiased_and_their_variance_falls_with_their_number():
    theta = {"a": jnp.zeros(()), "b": jnp.zeros(5)}
    spread = {}
    for number in (1, 4):
        estimator = eqs.ForwardGradient(
            4, 8, eqs.ConstantLength(8), directions=eqs.RandomDirections(number)
        )
        out = windows(LinearWalk(0.1), estimator, theta, jr.key(0), 2000)
        b = np.asarray(out.gradient["b"])[100:].reshape(50, -1, 5).mean(1)
        error = b.std(0, ddof=1) / np.sqrt(50)
        assert np.all(np.abs(b.mean(0) - 3.5) < 4 * error)
        spread[number] = np.asarray(out.gradient["b"]).std()
    # Each entry's variance is (n - 1) g^2 / number, whatever the other noise.
    assert 1.6 < spread[1] / spread[4] < 2.4


def test_random_directions_have_the_identity_as_second_moment():
    draw = lambda k: eqs.RandomDirections(3).draw(jnp.zeros(4), key=k)
    v = np.asarray(jax.vmap(draw)(jr.split(jr.key(0), 5000)))
    moment = np.einsum("njp,njq->pq", v, v) / 5000
    np.testing.assert_allclose(moment, np.eye(4), atol=5 / np.sqrt(3 * 5000))


@pytest.mark.parametrize("sampling", [eqs.AntitheticPairs(), eqs.ForwardDifference()])
@pytest.mark.parametrize("noise", [eqs.IsotropicNoise(), eqs.PerLeafNoise([3.0, 0.5])])
@pytest.mark.parametrize("method", [eqs.PES, eqs.NRES, eqs.PESAnalytic])
def test_every_noise_and_sampling_is_unbiased_on_the_linear_walk(method, noise, sampling):
    theta = [jnp.zeros(()), jnp.zeros(2)]
    estimator = method(4, 32, 0.1, eqs.ConstantLength(10), noise=noise, sampling=sampling)
    out = windows(LinearWalk(0.1), estimator, theta, jr.key(0), 600)
    for leaf in jtu.tree_leaves(out.gradient):
        blocks = np.asarray(leaf)[10:].reshape(59, 10, -1).mean(1)
        error = blocks.std(0, ddof=1) / np.sqrt(59)
        assert np.all(np.abs(blocks.mean(0) - 4.5) < 4 * error)
        assert np.all(error < 1)


@pytest.mark.parametrize("sampling", [eqs.AntitheticPairs(), eqs.ForwardDifference()])
def test_truncated_and_full_es_take_every_sampling(sampling):
    theta = jnp.asarray(0.3)
    exact = eqs.meta_gradient(UNROLL, eqs.FullBackprop(12, 1), theta, key=jr.key(0))
    # With windows of whole episodes nothing is truncated.
    for estimator in (
        eqs.FullES(12, 200, 1e-3, sampling=sampling),
        eqs.TruncatedES(12, 200, 1e-3, LENGTH, eqs.LockStep(), sampling=sampling),
    ):
        out = windows(UNROLL, estimator, theta, jr.key(0), 40)
        error = np.std(out.gradient) / np.sqrt(40)
        assert abs(np.mean(out.gradient) - exact.gradient) < 4 * error
        assert error < 0.1 * abs(exact.gradient)


def test_per_leaf_noise_perturbs_each_leaf_by_its_scale():
    theta = {"a": jnp.zeros(3), "b": {"c": jnp.zeros(2), "d": jnp.zeros(())}}
    noise = eqs.PerLeafNoise({"a": 10.0, "b": 0.1})
    estimator = eqs.NRES(5, 4000, 0.5, noise=noise)
    state = estimator.init(LinearWalk(0.0), theta, key=jr.key(0))
    # Every particle begins an episode, and so draws its noise, in the first window.
    _, state = estimator.estimate(LinearWalk(0.0), theta, state, key=jr.key(1))
    spread = {k: np.std(v) for k, v in state.noise["b"].items()} | {
        "a": np.std(state.noise["a"])
    }
    np.testing.assert_allclose(spread["a"], 5, rtol=0.05)
    np.testing.assert_allclose(spread["c"], 0.05, rtol=0.05)
    np.testing.assert_allclose(spread["d"], 0.05, rtol=0.05)


@pytest.mark.parametrize("starts", [eqs.LockStep(), eqs.Staggered()])
@pytest.mark.parametrize(
    "method, name, shape",
    [
        (lambda starts: eqs.NRES(4, 3, 0.1, LENGTH, starts), "noise", (3, 2)),
        (
            lambda starts: eqs.ForwardGradient(
                4, 3, LENGTH, starts, directions=eqs.RandomDirections(5)
            ),
            "directions",
            (3, 5, 2),
        ),
    ],
    ids=["NRES", "ForwardGradient"],
)
def test_what_an_episode_keeps_is_drawn_where_it_begins(method, name, shape, starts):
    estimator, unroll, theta = method(starts), LinearWalk(0.1), jnp.zeros(2)
    state = estimator.init(unroll, theta, key=jr.key(0))
    np.testing.assert_array_equal(getattr(state, name), np.zeros(shape))
    # Before a particle's first episode, whatever stands there is not used.
    other = eqx.tree_at(lambda s: getattr(s, name), state, jnp.full(shape, 7.0))
    estimate = eqx.filter_jit(estimator.estimate)
    ours, theirs = (estimate(unroll, theta, s, key=jr.key(1)) for s in (state, other))
    assert eqx.tree_equal(ours, theirs)
    assert np.all(getattr(ours[1], name) != 0)


@pytest.mark.parametrize("kind", [eqs.PES, eqs.PESAnalytic, eqs.NRES])
def test_scales_of_another_structure_are_refused_at_the_start(kind):
    estimator = kind(noise=eqs.PerLeafNoise({"a": 1.0, "z": 1.0}))
    with pytest.raises(ValueError, match="must have the structure of `theta`"):
        estimator.init(LinearWalk(0.0), {"a": jnp.zeros(())}, key=jr.key(0))


@pytest.mark.parametrize("kind", [eqs.TruncatedES, eqs.FullES])
def test_scales_of_another_structure_are_refused_by_an_estimate(kind):
    estimator = kind(3, noise=eqs.PerLeafNoise({"a": 1.0, "z": 1.0}))
    theta = {"a": jnp.zeros(())}
    with pytest.raises(ValueError, match="must have the structure of `theta`"):
        state = estimator.init(LinearWalk(0.0), theta, key=jr.key(0))
        estimator.estimate(LinearWalk(0.0), theta, state, key=jr.key(0))


@pytest.mark.parametrize(
    "shaping, shape",
    [
        (eqs.NoShaping(), lambda d: d),
        (eqs.ClipDifference(0.05), lambda d: np.clip(d, -0.05, 0.05)),
        (eqs.SignDifference(0.3), lambda d: 0.3 * np.sign(d)),
    ],
    ids=["none", "clip", "sign"],
)
def test_shaping_changes_the_difference_of_a_pair(shaping, shape):
    # l_t = t theta: the pair's mean losses over 4 steps differ by 2 eps 3 / 2.
    estimator = eqs.NRES(4, 6, 0.1, eqs.ConstantLength(4), eqs.LockStep(), shaping=shaping)
    state = estimator.init(LinearWalk(0.0), jnp.zeros(()), key=jr.key(0))
    out, after = eqx.filter_jit(estimator.estimate)(
        LinearWalk(0.0), jnp.zeros(()), state, key=jr.key(1)
    )
    # The noise of the episode, which began in that window.
    eps = np.asarray(after.noise)
    expected = (shape(3 * eps) * eps).mean() / (2 * 0.1**2)
    np.testing.assert_allclose(out.gradient, expected, rtol=1e-9)


class _FirstStep(eqs.AbstractUnroll):
    """Whose loss is theta in an episode's first step, and -theta in all others."""

    def init(self, theta, *, key):
        return jnp.zeros(())

    def step(self, theta, carry, *, key):
        return carry + 1, theta * jnp.where(carry == 0, 1.0, -1.0)


def test_truncated_es_shapes_old_and_fresh_episodes_apart():
    # In episodes of three steps the second window of four sees - - | + -: two signs, where
    # the sum of all is one.
    shaping = eqs.SignDifference()
    estimator = eqs.TruncatedES(4, 1, 1.0, 3, eqs.LockStep(), shaping=shaping)
    state = estimator.init(_FirstStep(), jnp.zeros(()), key=jr.key(0))
    units = []
    for n in range(2):
        key = jr.key(n)
        out, state = estimator.estimate(_FirstStep(), jnp.zeros(()), state, key=key)
        noise = estimator._pairs.draw(jnp.zeros(()), key=jr.split(key)[0])
        units.append(float(out.gradient / jnp.abs(noise[0])))
    # | + - - | + : fresh only, of no sum; then - - of the old one, | + - of no sum.
    np.testing.assert_allclose(units, [0.0, -0.5], atol=1e-12)


class _Logistic(eqs.AbstractUnroll):
    def init(self, theta, *, key):
        return jr.uniform(key, (), minval=0.2, maxval=0.8)

    def step(self, theta, carry, *, key):
        return jnp.clip(theta * carry * (1 - carry), 0, 1), carry


def test_a_derivative_that_overflows_is_dropped_and_its_member_has_not_diverged():
    estimator = eqs.ForwardGradient(1500, 8, length=1500, starts=eqs.LockStep())
    out = eqs.meta_gradient(_Logistic(), estimator, jnp.asarray(3.99), key=jr.key(0))
    assert (out.diverged, out.dropped) == (0, 8)


def test_the_control_variate_lowers_the_variance_of_pes():
    # Windows of half an episode: what a window does to its own losses is most of all.
    theta = jnp.asarray(0.3)
    settings = 6, 8, 0.01, LENGTH, eqs.LockStep()
    variance = []
    for method in (eqs.PES, eqs.PESAnalytic):
        out = windows(UNROLL, method(*settings), theta, jr.key(0), 800)
        variance.append(np.asarray(out.gradient).reshape(-1, 2).mean(1).var())
    assert variance[1] < 0.7 * variance[0]


def test_the_control_variate_leaves_nothing_of_the_noise_on_a_linear_episode():
    # With K = T on a walk that is linear in theta the prediction is exact.
    estimator = eqs.PESAnalytic(6, 4, 0.1, eqs.ConstantLength(6), eqs.LockStep())
    out = windows(LinearWalk(0.5), estimator, jnp.zeros(2), jr.key(0), 5)
    np.testing.assert_allclose(out.gradient, 2.5, rtol=1e-9)


REMATS = {
    "none": eqs.NoRematerialisation(),
    "every step": eqs.EveryStep(),
    "root": eqs.Segments(),
    "one": eqs.Segments(1),
    "does not divide": eqs.Segments(5),
    "longer": eqs.Segments(100),
    "within memory": eqs.WithinMemory(),
}


@pytest.mark.parametrize("remat", REMATS.values(), ids=REMATS)
@pytest.mark.parametrize("window", [12, 13])
def test_rematerialisation_changes_nothing_but_rounding(remat, window):
    # 13 steps, a prime, and episodes that begin inside the window.
    settings = window, 3, LENGTH, eqs.Staggered()
    plain = eqs.TruncatedBackprop(*settings, remat=eqs.NoRematerialisation())
    ours = eqs.TruncatedBackprop(*settings, remat=remat)
    a = windows(_Recurrence(), plain, THETA, jr.key(0), 4)
    b = windows(_Recurrence(), ours, THETA, jr.key(0), 4)
    for x, y in zip(
        jtu.tree_leaves((a.gradient, a.meta_loss)),
        jtu.tree_leaves((b.gradient, b.meta_loss)),
        strict=True,
    ):
        np.testing.assert_allclose(x, y, rtol=1e-10)


# A function whose derivative is taken of another form, as the update's network has it; here
# the two differ, so as to be told apart.
@jax.custom_jvp
def _two_forms(x):
    return x


@_two_forms.defjvp
def _other_form(primals, tangents):
    return primals[0] + 100, tangents[0]


class _TwoForms(eqs.AbstractUnroll):
    def init(self, theta, *, key):
        return jnp.ones(())

    def step(self, theta, carry, *, key):
        carry = _two_forms(theta * carry)
        return carry, carry


@pytest.mark.parametrize("name", ["every step", "root", "does not divide"])
def test_only_what_is_differentiated_takes_the_form_for_derivatives(name):
    estimator = eqs.FullBackprop(13, 1, remat=REMATS[name])
    theta, state = jnp.asarray(0.5), jnp.zeros((), jnp.int32)
    out, _ = estimator.estimate(_TwoForms(), theta, state, key=jr.key(0))
    powers = np.arange(1, 14)
    np.testing.assert_allclose(out.meta_loss, np.mean(0.5**powers), rtol=1e-12)
    np.testing.assert_allclose(
        out.gradient, np.mean(powers * 0.5 ** (powers - 1)), rtol=1e-12
    )


class _Wide(eqs.AbstractUnroll):
    """A step with many intermediates: 2,000 numbers of state, ten nonlinearities."""

    def init(self, theta, *, key):
        return jnp.ones(2000)

    def step(self, theta, carry, *, key):
        for _ in range(10):
            carry = jnp.sin(theta * carry + 1)
        return carry, jnp.mean(carry**2)


def _scratch(remat, steps, particles=1):
    estimator = eqs.FullBackprop(steps, particles, remat=remat)

    def run(theta, seed):
        state = jnp.zeros((), jnp.int32)
        return estimator.estimate(_Wide(), theta, state, key=jr.key(seed))[0].gradient

    compiled = jax.jit(run).lower(jnp.asarray(0.5), jnp.asarray(0)).compile()
    return compiled.memory_analysis().temp_size_in_bytes  # pyright: ignore


def test_the_memory_of_back_propagation_grows_with_the_root_of_the_steps():
    # 16 times the steps: 16 times the memory without rematerialisation, 4 times with.
    plain = _scratch(REMATS["none"], 1024) / _scratch(REMATS["none"], 64)
    segments = _scratch(REMATS["root"], 1024) / _scratch(REMATS["root"], 64)
    assert plain > 12
    assert segments < 5
    assert _scratch(REMATS["root"], 1024) < 0.03 * _scratch(REMATS["none"], 1024)


def test_within_memory_every_step_keeps_its_carry_and_beyond_it_a_segment_does():
    carry = 2000 * jnp.zeros(()).dtype.itemsize
    every, segments = eqs.EveryStep(), eqs.Segments()
    fits, does_not = eqs.WithinMemory(64 * carry), eqs.WithinMemory(64 * carry - 1)
    assert _scratch(fits, 64) == _scratch(every, 64) != _scratch(segments, 64)
    assert _scratch(does_not, 64) == _scratch(segments, 64)
    assert _scratch(fits, 65) == _scratch(segments, 65)
    # The carries of all particles together.
    assert _scratch(fits, 64, 2) == _scratch(segments, 64, 2)
    assert _scratch(fits, 32, 2) == _scratch(every, 32, 2) != _scratch(segments, 32, 2)


def test_every_step_keeps_its_carry_and_none_of_its_intermediates():
    # Of 1,024 steps the carries, 2,000 numbers each; ten nonlinearities keep 20 times that.
    numbers = 1024 * 2000 * jnp.zeros(()).dtype.itemsize
    assert _scratch(REMATS["every step"], 1024) < 1.2 * numbers
    assert _scratch(REMATS["none"], 1024) > 8 * numbers


def test_a_chosen_segment_length_trades_memory_for_nothing_else():
    # K / s + s carries: 1024 / 32 + 32 = 64 against 1024 / 256 + 256 = 260.
    best, long = _scratch(eqs.Segments(32), 1024), _scratch(eqs.Segments(256), 1024)
    assert 2 < long / best < 6
