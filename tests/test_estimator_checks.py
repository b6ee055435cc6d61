"""Estimators take any theta, and say what is wrong with an unroll or a setting."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar._estimators._checks import check_unroll, check_windowed


T, WINDOW = 6, 6
LENGTH, START = eqs.ConstantLength(T), eqs.LockStep()
EXACT = {
    "FullBackprop": eqs.FullBackprop(T, 2),
    "TruncatedBackprop": eqs.TruncatedBackprop(WINDOW, 2, LENGTH, START),
    "ForwardGradient": eqs.ForwardGradient(WINDOW, 2, LENGTH, START),
}
SAMPLED = {
    "PES": eqs.PES(WINDOW, 400, 1e-3, LENGTH, START),
    "NRES": eqs.NRES(WINDOW, 400, 1e-3, LENGTH, START),
    "TruncatedES": eqs.TruncatedES(WINDOW, 400, 1e-3, LENGTH, START),
    "FullES": eqs.FullES(T, 400, 1e-3),
    "PESAnalytic": eqs.PESAnalytic(WINDOW, 4, 1e-3, LENGTH, START),
}


class Learned(eqs.AbstractUnroll):
    """Descent from a learned start; theta holds what is not differentiated, too."""

    def init(self, theta, *, key):
        return theta["start"] * jnp.ones(3)

    def step(self, theta, carry, *, key):
        curvature = jnp.array([1.0, 0.5, 0.1])
        chosen = jnp.where(theta["mask"][0], theta["index"][1, 0], 7).astype(carry.dtype)
        loss = 0.5 * chosen * jnp.sum(curvature * carry**2)
        noise = 0 * jr.normal(theta["key"], (), carry.dtype)
        return carry - theta["rate"] * curvature * carry + noise, loss


def _theta():
    return {
        "rate": jnp.asarray(0.3),
        "start": jnp.asarray(1.2),
        # Shapes that would pass for axes of particles and members.
        "index": jnp.array([[1, 2], [3, 4]]),
        "mask": jnp.array([True, False]),
        "key": jr.key(3),
        "name": "descent",
    }


def _by_hand():
    theta, unroll = _theta(), Learned()

    def mean(rate, start):
        theta_ = theta | {"rate": rate, "start": start}
        carry, losses = unroll.init(theta_, key=jr.key(0)), []
        for _ in range(T):
            carry, loss = unroll.step(theta_, carry, key=jr.key(0))
            losses.append(loss)
        return sum(losses) / T

    return jax.grad(mean, argnums=(0, 1))(theta["rate"], theta["start"])


@pytest.mark.parametrize("name", [*EXACT, *SAMPLED])
def test_the_first_window_differentiates_the_start_too_and_passes_other_arrays(name):
    estimator = (EXACT | SAMPLED)[name]
    out = eqs.meta_gradient(Learned(), estimator, _theta(), key=jr.key(0))
    found = np.array([out.gradient["rate"], out.gradient["start"]])
    expected = np.array(_by_hand())
    # 400 pairs in two dimensions: a standard error of sqrt(2 / 400) of the norm, or less.
    error = 1e-5 if name in EXACT else 0.3 * float(np.linalg.norm(expected))
    np.testing.assert_allclose(found, expected, atol=error)
    assert out.gradient["index"] is None and out.gradient["key"] is None


class Faulty(eqs.AbstractUnroll):
    start: Callable = eqx.field(static=True)
    result: Callable = eqx.field(static=True)

    def init(self, theta, *, key):
        return self.start(theta)

    def step(self, theta, carry, *, key):
        return self.result(theta, carry)


SCALAR = lambda theta: jnp.zeros(())


@pytest.mark.parametrize(
    "start, result, message",
    [
        (SCALAR, lambda t, c: (c, jnp.zeros(1)), r"scalar .*shape \(1,\)"),
        (SCALAR, lambda t, c: (c, jnp.zeros(2)), r"scalar .*shape \(2,\)"),
        (SCALAR, lambda t, c: (c, jnp.zeros((), int)), "floating-point scalar"),
        (SCALAR, lambda t, c: (c, 0.0), "scalar"),
        (SCALAR, lambda t, c: c, "a pair"),
        (lambda t: 0.0, lambda t, c: (c, jnp.zeros(())), "carry of arrays"),
        (lambda t: "start", lambda t, c: (c + 1, t), "init .* carry of arrays; got start"),
        (SCALAR, lambda t, c: (jnp.zeros(2), c), "carry like that of init"),
        (SCALAR, lambda t, c: (c.astype(jnp.float32), c), "carry like that of init"),
        (SCALAR, lambda t, c: ((c, c), c), "carry like that of init"),
    ],
)
def test_an_unroll_that_cannot_be_scanned_is_refused_in_one_sentence(
    start, result, message
):
    with pytest.raises(ValueError, match=message):
        check_unroll(Faulty(start, result), jnp.zeros(()), key=jr.key(0))


def test_every_estimator_checks_its_unroll():
    faulty = Faulty(SCALAR, lambda t, c: (c, jnp.zeros(1)))
    for estimator in (EXACT | SAMPLED).values():
        with pytest.raises(ValueError, match="scalar"):
            estimator.init(faulty, jnp.zeros(()), key=jr.key(0))


def test_settings_that_windows_cannot_serve_are_refused():
    with pytest.raises(ValueError, match="FullES or FullBackprop"):
        check_windowed(5, eqs.MinimumLoss())
    with pytest.raises(ValueError, match="at least 1"):
        check_windowed(0, eqs.MeanLoss())
    with pytest.raises(ValueError, match="windows"):
        eqs.meta_gradient(
            Learned(), eqs.FullBackprop(3), _theta(), key=jr.key(0), windows=0
        )


# As a caller without a type checker has it.
untyped: Any = eqs


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: untyped.PES(objective=untyped.FinalLoss),
            r"`objective` of PES is a class .* pass `FinalLoss\(\)`",
        ),
        (
            lambda: untyped.NRES(starts=untyped.LockStep),
            r"`starts` .* `LockStep\(\)`",
        ),
        (
            lambda: untyped.TruncatedBackprop(5, 4, 20, remat=None),
            r"`remat` of TruncatedBackprop must be .*Segments.*\); got None",
        ),
        (
            lambda: untyped.FullES(5, shaping="clip"),
            "`shaping` of FullES must be",
        ),
        (lambda: untyped.WithinMemory(1.5), "`limit` must be a whole number of at least 0"),
        (lambda: untyped.PES(5, 1.5), r"`pairs` must be a whole number .*got 1\.5"),
        (lambda: untyped.PES(2.5, 2), r"`window` must be a whole number .*got 2\.5"),
        (lambda: untyped.FullBackprop(5, 2.0), "`particles` must be a whole number"),
        (lambda: untyped.ConstantLength(2.5), "`length` must be a whole number"),
        (lambda: untyped.LogUniformLength(1, 2.5), "`longest` must be a whole number"),
        (lambda: untyped.GrowingLength(1, 2.5, 10), "`last` must be a whole number"),
    ],
)
def test_settings_of_another_kind_are_named(as_users_call, make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_task_and_a_class_are_no_unroll_and_no_estimator(as_users_call):
    task, key = eqs.tasks.Quadratic(jnp.ones(2)), jr.key(0)
    with pytest.raises(ValueError, match="Quadratic is no unroll: wrap a task"):
        untyped.meta_gradient(task, eqs.PES(), jnp.zeros(()), key=key)
    with pytest.raises(ValueError, match=r"`estimator` is a class .* `PES\(\)`"):
        untyped.meta_gradient(Learned(), eqs.PES, _theta(), key=key)


def test_meta_training_names_the_unroll_that_is_at_fault(as_users_call):
    faulty = Faulty(lambda theta: 1, lambda theta, carry: (carry, theta))
    with pytest.raises(ValueError, match=r"^Faulty\.init must return a carry of arrays"):
        eqs.meta_train(faulty, eqs.PES(5, 2), jnp.zeros(()), steps=1, key=jr.key(0))


def test_a_number_of_steps_is_a_length_everywhere():
    assert eqs.PES(5, 4, 0.1, 23).length == eqs.ConstantLength(23)
    assert eqs.Curriculum({0: 10}).stages == (eqs.ConstantLength(10),)


class _OverflowsAtTheEnd(eqs.AbstractUnroll):
    """Finite until the last step of an episode of four, and not after it."""

    def init(self, theta, *, key):
        return jnp.zeros(())

    def step(self, theta, carry, *, key):
        carry = jnp.where(carry < 3, carry + 1, jnp.inf)
        return carry, theta + 0 * jnp.minimum(carry, 1)


@pytest.mark.parametrize(
    "estimator",
    [
        eqs.FullES(eqs.LogUniformLength(4, 9), 8),
        eqs.FullBackprop(eqs.LogUniformLength(4, 9), 16),
    ],
    ids=["FullES", "FullBackprop"],
)
def test_whole_episodes_of_any_length_are_counted_where_they_end(estimator):
    # Of the 16 members each ends at inf, also those whose next episode is young.
    estimate = lambda estimator: eqs.meta_gradient(
        _OverflowsAtTheEnd(), estimator, jnp.ones(()), key=jr.key(0)
    )
    assert estimate(estimator).diverged == 16
    short = eqx.tree_at(lambda e: e.length, estimator, eqs.LogUniformLength(2, 3))
    assert estimate(short).diverged == 0


class _Slopes(eqs.AbstractUnroll):
    """The loss of each step is a number of its own times theta."""

    slopes: jax.Array

    def init(self, theta, *, key):
        return jnp.zeros((), jnp.int32)

    def step(self, theta, carry, *, key):
        return carry + 1, jnp.sum(self.slopes[carry] * theta)


def test_windows_without_a_finite_gradient_are_left_out_of_the_mean():
    estimator = eqs.TruncatedBackprop(2, 1, 6, eqs.LockStep())
    mean = lambda *slopes: eqs.meta_gradient(
        _Slopes(jnp.array(slopes)), estimator, jnp.full(2, 0.5), key=jr.key(0), windows=3
    )
    # The second window's loss, of the step that is finite, is left out as well.
    out = mean(1.0, 1.0, 10.0, jnp.nan, 3.0, 3.0)
    np.testing.assert_array_equal(out.gradient, [2.0, 2.0])
    assert out.meta_loss == 2 and out.dropped == 1
    out = mean(1.0, jnp.nan, 2.0, jnp.nan, 3.0, jnp.nan)
    assert jnp.all(jnp.isnan(out.gradient)) and out.meta_loss == 2 and out.dropped == 3


def test_complex_meta_parameters_are_refused():
    theta = {"a": jnp.asarray(1 + 2j)}
    for estimator in (EXACT | SAMPLED).values():
        with pytest.raises(ValueError, match="real and imaginary parts as arrays"):
            estimator.init(Learned(), theta, key=jr.key(0))


class _SumOfAll(eqs.AbstractUnroll):
    def init(self, theta, *, key):
        return jnp.zeros(())

    def step(self, theta, carry, *, key):
        sums = [jnp.sum(x.astype(carry.dtype)) for x in theta.values()]
        return carry, sums[0] + sums[1]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", SAMPLED)
def test_evolution_strategies_refuse_theta_that_rounds_their_noise_away(name, dtype):
    theta = {"wide": jnp.ones(()), "narrow": jnp.ones(2, dtype)}
    with pytest.raises(ValueError, match=f"{dtype}.*keep it in float32"):
        eqs.meta_gradient(_SumOfAll(), SAMPLED[name], theta, key=jr.key(0))


def _descent(size=3):
    return _theta() | {"start": jnp.ones(size)}


# Estimators that go on from each other's states.
ALIKE = [{"PES", "PESAnalytic"}, {"FullES", "FullBackprop"}]


@pytest.mark.parametrize("name", [*EXACT, *SAMPLED])
def test_a_state_of_another_estimator_is_refused(as_users_call, name):
    estimator, key = (EXACT | SAMPLED)[name], jr.key(0)
    number = "pairs" if hasattr(estimator, "pairs") else "particles"
    # Of whole episodes nothing is kept for each particle.
    others = [] if "Full" in name else [dataclasses.replace(estimator, **{number: 1})]
    for other in ("NRES", "PES", "TruncatedBackprop", "FullES"):
        if other != name and {name, other} not in ALIKE:
            others.append((EXACT | SAMPLED)[other])
    for other in others:
        state = other.init(Learned(), _theta(), key=key)
        with pytest.raises(ValueError, match="`state` is not of this estimator"):
            estimator.estimate(Learned(), _theta(), state, key=key)


@pytest.mark.parametrize("name", ["PES", "NRES", "PESAnalytic"])
def test_a_state_of_another_theta_is_refused(name):
    estimator, key = (EXACT | SAMPLED)[name], jr.key(0)
    state = estimator.init(Learned(), _descent(), key=key)
    with pytest.raises(ValueError, match="`state` is not of this estimator"):
        estimator.estimate(Learned(), _theta(), state, key=key)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: untyped.ClipDifference("1"), "`limit` must be one number"),
        (lambda: untyped.ClipDifference(True), "`limit` must be one number"),
        (lambda: untyped.ClipDifference(-1.0), "`limit` must be positive"),
        (lambda: untyped.SignDifference(None), "`scale` must be one number"),
        (lambda: untyped.SignDifference(float("inf")), "`scale` must be positive and fin"),
    ],
)
def test_shaping_takes_numbers(as_users_call, make, message):
    with pytest.raises(ValueError, match=message):
        make()


class _Descent(eqs.AbstractUnroll):
    def init(self, theta, *, key):
        return jnp.ones_like(*jax.tree.leaves(theta))

    def step(self, theta, carry, *, key):
        (theta,) = jax.tree.leaves(theta)
        return carry - 0.1 * theta * carry, jnp.sum(carry**2)


class OwnObjective(eqs.AbstractObjective):
    give: Callable = eqx.field(static=True)

    def episode(self, losses, length, mean_length):
        return self.give(losses[-1])


class OwnStepObjective(eqs.AbstractStepObjective):
    give: Callable = eqx.field(static=True)

    def step(self, loss, step, length, mean_length):
        return self.give(loss)


class OwnNoise(eqs.AbstractNoise):
    give: Callable = eqx.field(static=True)

    def scale(self, theta):
        return self.give(theta)


class OwnLength(eqs.AbstractEpisodeLength):
    drawn: Callable = eqx.field(default=lambda key: 7, static=True)
    expected: Any = eqx.field(default=7.0, static=True)
    longest: Any = eqx.field(default=7, static=True)

    @property
    def maximum(self):
        return self.longest

    def draw(self, meta_step, *, key):
        return self.drawn(key)

    def mean(self, meta_step) -> Any:
        return self.expected() if callable(self.expected) else self.expected


def _begin(estimator, theta: Any = jnp.ones(3)):
    return eqs.meta_train_init(_Descent(), estimator, theta, optax.sgd(0.1), key=jr.key(0))


_OWN_OBJECTIVE = [
    pytest.param(lambda loss: jnp.stack([loss, loss]), r"float64 of shape \(2,\)", id="2"),
    pytest.param(lambda loss: loss.astype(jnp.int32), r"int32 of shape \(\)", id="int32"),
    pytest.param(lambda loss: loss.astype(complex), "complex128", id="complex"),
    pytest.param(lambda loss: loss > 0, "bool", id="bool"),
    pytest.param(lambda loss: None, "NoneType", id="None"),
    pytest.param(lambda loss: 1.0, "float", id="float"),
]


@pytest.mark.parametrize("give, said", _OWN_OBJECTIVE)
@pytest.mark.parametrize("name", [*EXACT, *SAMPLED])
def test_an_objective_that_is_not_one_number_is_named(as_users_call, name, give, said):
    estimator = (EXACT | SAMPLED)[name]
    kinds = [(OwnStepObjective, "step")]
    kinds += [(OwnObjective, "episode")] if "Full" in name else []
    for kind, method in kinds:
        own = dataclasses.replace(estimator, objective=kind(give))
        message = f"^{kind.__name__}.{method} must return a floating-point .*; got {said}"
        with pytest.raises(ValueError, match=message):
            own.init(_Descent(), jnp.ones(3), key=jr.key(0))


@pytest.mark.parametrize(
    "give, said",
    [
        (lambda theta: None, r"in the structure of `theta`.*; got None for \{'a': \*\}"),
        (lambda theta: {"b": 1.0}, r"structure of `theta`.*; got \{'b': \*\}"),
        (lambda theta: {"a": "wide"}, "a real number or array.*; got str for"),
        (lambda theta: {"a": jnp.ones(2)}, r"broadcasts.*; got float64 of shape \(2,\)"),
        (lambda theta: {"a": jnp.ones((1, 3))}, "broadcasts"),
        (lambda theta: {"a": 1j}, "a real number .*; got complex for float64 of shape"),
        (lambda theta: {"a": theta["a"] > 0}, "a real number or array.*; got bool"),
        (lambda theta: {"a": 0.0}, "positive and finite numbers; got 0.0"),
        (lambda theta: {"a": jnp.array([1, jnp.nan, 1])}, "positive and finite.*; got nan"),
        (lambda theta: {"a": -jnp.ones_like(theta["a"])}, "positive and fin.*; got -1.0"),
    ],
)
@pytest.mark.parametrize("name", SAMPLED)
def test_scales_that_theta_cannot_be_perturbed_with_are_named(
    as_users_call, name, give, said
):
    estimator = dataclasses.replace(SAMPLED[name], noise=OwnNoise(give))
    with pytest.raises(ValueError, match=f"^OwnNoise.scale must return .*{said}"):
        _begin(estimator, {"a": jnp.ones(3)})


def test_scales_that_widen_theta_are_refused(as_users_call):
    theta = jnp.ones(3, jnp.float32)
    wide = dataclasses.replace(SAMPLED["PES"], noise=OwnNoise(lambda _: jnp.ones(3)))
    with pytest.raises(ValueError, match=r"keeps its dtype; got float64 .* for float32"):
        _begin(wide, theta)


def test_scales_may_be_numbers_and_depend_on_theta(as_users_call):
    for give in (lambda theta: 2, lambda theta: 1.0 + jnp.abs(theta[0])):
        estimator = eqs.PES(2, 2, 0.1, 4, noise=OwnNoise(give))
        gradient = eqs.meta_gradient(
            _Descent(), estimator, jnp.ones(3), key=jr.key(0)
        ).gradient
        assert gradient.shape == (3,) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    "length, said",
    [
        (OwnLength(longest=2.5), "`OwnLength.maximum` must be a whole number .*; got 2.5"),
        (OwnLength(longest=0), "`OwnLength.maximum` must be .* at least 1; got 0"),
        (OwnLength(longest=None), "`OwnLength.maximum` must be .*; got None"),
        (OwnLength(lambda key: 7.0), "^OwnLength.draw must return one whole .*; got float"),
        (OwnLength(lambda key: jnp.array([3, 4])), r"OwnLength.draw .* of shape \(2,\)"),
        (OwnLength(lambda key: jnp.ones(())), r"OwnLength.draw .*; got float64"),
        (OwnLength(lambda key: None), "OwnLength.draw must .*; got NoneType"),
        (OwnLength(lambda key: 0), "draw must .* OwnLength.maximum, which is 7; got 0"),
        (OwnLength(lambda key: 8), "draw must return at least 1 and at most .*; got 8"),
        (OwnLength(lambda key: jr.randint(key, (), 0, 8)), "at least 1 .*; got 0"),
        (OwnLength(expected=None), "OwnLength.mean must return one real .*; got NoneType"),
        (OwnLength(expected=lambda: jnp.ones(2)), r"OwnLength.mean .* of shape \(2,\)"),
        (eqs.Curriculum({0: OwnLength(lambda key: 0)}), "^OwnLength.draw .*; got 0"),
    ],
)
def test_lengths_that_no_episode_can_have_are_named(as_users_call, length, said):
    for name, estimator in (EXACT | SAMPLED).items():
        if name in ("TruncatedBackprop", "FullES", "PES"):
            with pytest.raises(ValueError, match=said):
                _begin(dataclasses.replace(estimator, length=length))


@pytest.mark.parametrize("name", [*EXACT, *SAMPLED])
def test_a_length_may_be_a_number_of_python(as_users_call, name):
    def estimate(*lengths):
        length = eqs.Curriculum(dict(enumerate(lengths))) if lengths[1:] else lengths[0]
        starts = {} if "Full" in name else {"starts": eqs.Staggered()}
        estimator = dataclasses.replace((EXACT | SAMPLED)[name], length=length, **starts)
        found = eqs.meta_gradient(_Descent(), estimator, jnp.ones(3), key=jr.key(0))
        return found.gradient

    own, constant = OwnLength(expected=7), eqs.ConstantLength(7)
    np.testing.assert_array_equal(estimate(own), estimate(constant))
    np.testing.assert_array_equal(estimate(own, own), estimate(constant, constant))


def test_parts_are_looked_at_before_a_run_and_not_at_its_steps(monkeypatch):
    estimator, outer = eqs.PES(3, 2, 0.1, 4), optax.sgd(0.1)
    state = _begin(estimator)
    monkeypatch.setattr("equistar._estimators._pes.check_run", None)
    state, _ = eqs.meta_train_step(_Descent(), estimator, outer, state)
    with pytest.raises(TypeError):
        estimator.init(_Descent(), jnp.ones(3), key=jr.key(0))
