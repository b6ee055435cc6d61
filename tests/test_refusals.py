"""What the analysis refuses, or gets right at the edge of what numbers can hold."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar.analysis import (
    descent_iterates,
    draw_least_squares,
    ExactGradient,
    Health,
    joint_spectrum,
    LeastSquares,
    linear_margin,
    LinearOptimizer,
    LongRun,
    meta_gradient_health,
    NoisyQuadratic,
    star_quadratic,
    StepSizeProblem,
)
from equistar.analysis._references import AbstractReference

from .helpers import LinearWalk


class NaNs(eqs.AbstractOptimizer):
    def init(self, params):
        return jtu.tree_map(jnp.zeros_like, params)

    def update(self, grads, state, params, **extra):
        return jtu.tree_map(lambda g: g * jnp.nan, grads), state


def test_an_update_that_is_not_finite_has_no_spectrum():
    task = eqs.tasks.Quadratic(jnp.array([2.0, 1.0]))
    state = eqs.train_init(task, NaNs(), key=jr.key(0))
    with pytest.raises(ValueError, match="update at this state is not finite"):
        joint_spectrum(task, NaNs(), state, key=jr.key(0))


class Silent(eqs.AbstractUnroll):
    def init(self, theta, *, key):
        return jnp.ones(())

    def step(self, theta, carry, *, key):
        return carry, carry + 0 * theta


def test_a_gradient_of_zeros_is_silent_at_the_only_horizon_too():
    health = meta_gradient_health(Silent(), jnp.ones(()), [30], key=jr.key(0))
    assert health.verdict == Health.SILENTLY_ZERO and health.turns_at == 30
    assert "silently zero" in str(health)


def test_the_log_objective_has_a_derivative_where_a_factor_is_exactly_zero():
    problem = StepSizeProblem(jnp.array([0.5, 1.0, 4.0]), jnp.ones(3))
    at = jnp.asarray(0.25)
    slope = jax.grad(problem.log_objective)(at, 5)
    np.testing.assert_allclose(slope, problem.log_objective_slope(at, 5), rtol=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: StepSizeProblem(-jnp.ones(2), jnp.ones(2)), "positive"),
        (lambda: StepSizeProblem(jnp.ones(2), jnp.zeros(2)), "not all zero"),
        (lambda: NoisyQuadratic(jnp.eye(2), -jnp.eye(2)), "positive semidefinite"),
        (
            lambda: NoisyQuadratic(jnp.array([[1.0, 2.0], [0.0, 1.0]]), jnp.eye(2)),
            "symmetric",
        ),
        (lambda: LongRun(eqs.FullES(3), runs=1), "at least 2"),
        (lambda: untyped.LongRun(eqs.FullES(3), runs=2.5), r"`runs` must be .* got 2\.5"),
        (lambda: untyped.LongRun(eqs.FullES(3), runs="3"), "`runs` must be .* got '3'"),
        (
            lambda: untyped.NoisyQuadratic(EYE, EYE, start_scale="a"),
            "`start_scale` must be one number.* got 'a'",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(as_users_call, call, message):
    with pytest.raises(ValueError, match=message):
        call()


# As a caller without a type checker has it.
untyped: Any = eqs.analysis
THETA, WALK = jnp.zeros(2), LinearWalk(0.0)
TASK = eqs.tasks.Quadratic(jnp.ones(2))


EYE = jnp.eye(2)
NQM, LINEAR = star_quadratic(), LinearOptimizer(0.1, jnp.zeros((2, 2)))


def _compare(unroll, estimators, reference: Any = ExactGradient(THETA)):
    untyped.compare_estimators(
        unroll, estimators, THETA, reference=reference, steps=1, key=jr.key(0)
    )


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: _compare(TASK, {"PES": eqs.PES()}), "Quadratic is no unroll"),
        (lambda: _compare(WALK, [eqs.PES()]), r"dictionary .*; got \[PES\(\)\]"),
        (lambda: _compare(WALK, {"PES": eqs.PES}), r"'PES' is a class .* `PES\(\)`"),
        (lambda: _compare(WALK, {"PES": eqs.PES()}, THETA), "must be .*ExactGradient, L"),
        (lambda: untyped.LongRun(eqs.FullES), "`estimator` of LongRun is a class"),
        (
            lambda: untyped.meta_gradient_health(TASK, THETA, [1], key=jr.key(0)),
            "Quadratic is no unroll: wrap a task",
        ),
        (lambda: NoisyQuadratic(EYE, EYE, jnp.ones(3)), r"`start` a vector as long.*\(3,"),
        (lambda: untyped.NoisyQuadratic(EYE, 0.0), "`noise` must be a matrix"),
        (lambda: linear_margin(EYE, 0.1, jnp.zeros((3, 3))), "must be of one size"),
        (
            lambda: NQM.mean_loss(LinearOptimizer(0.1, jnp.zeros((3, 3))), 3),
            r"`theta.matrix` must have the Hessian's shape, \(2, 2\); got \(3, 3\)",
        ),
        (
            lambda: NQM.mean(LinearOptimizer(SEVERAL, jnp.zeros((2, 2))), 3),
            "`alpha` must be one real number",
        ),
        (
            lambda: LinearOptimizer(0.1, jnp.zeros((2, 3))).preconditioner(),
            r"`matrix` must be square; got shape \(2, 3\)",
        ),
        (
            lambda: NQM.transition(untyped.NoisyQuadratic(EYE, EYE)),
            r"`theta` must be a `LinearOptimizer\(alpha, matrix\)`; got",
        ),
        (lambda: linear_margin(jnp.ones((2, 3)), 0.1, EYE), "Hessian must be square"),
        (
            lambda: eqs.analysis.disturbed_margin(EYE, 0.1, EYE, jnp.ones(3), jnp.ones(2)),
            "`disturbance` must have a number for each row .*, 2; got shape",
        ),
        (
            lambda: untyped.meta_gradient_health(WALK, THETA, [1], key=3),
            "`key` must be one PRNG key",
        ),
        (
            lambda: untyped.meta_gradient_health(WALK, THETA, 10, key=jr.key(0)),
            r"`horizons` must be a list .*got 10\.",
        ),
        (
            lambda: untyped.meta_gradient_health(WALK, THETA, [1.5], key=jr.key(0)),
            r"increasing whole numbers .*got \[1.5\]\.",
        ),
        (
            lambda: untyped.meta_gradient_health(WALK, 0.1, [1], key=jr.key(0)),
            "`theta` holds no floating-point array",
        ),
        (
            lambda: meta_gradient_health(WALK, THETA.astype(complex), [1], key=jr.key(0)),
            "`theta` holds complex numbers",
        ),
        (
            lambda: untyped.meta_gradient_health(
                WALK, THETA, [1], particles=2.0, key=jr.key(0)
            ),
            r"`particles` must be a whole number of at least 1; got 2\.0",
        ),
    ],
)
def test_arguments_of_another_kind_are_named(as_users_call, call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_an_exact_gradient_of_another_structure_is_refused():
    reference: AbstractReference = ExactGradient(jnp.asarray(0.5))
    with pytest.raises(ValueError, match="must have the structure"):
        reference.gradient(LinearWalk(0.0), jnp.ones(3), 10, key=jr.key(0))


def test_iterates_whose_square_overflows_are_not_frozen():
    # One dimension, x = 1, y = 1: w_t = 1 - (1 - eta)^t, and 1e30 squared is no float32.
    one = jnp.ones((1, 1), jnp.float32)
    problem = LeastSquares(one, one[0], one[0])
    (w,) = descent_iterates(problem, jnp.asarray([11.0], jnp.float32), 30)
    np.testing.assert_allclose(w, [-1e30], rtol=1e-5)


def _iterates(step_sizes, **options):
    problem = untyped.LeastSquares([[1, 0], [0, 1]], [1, 1], [1, 1])
    return untyped.descent_iterates(problem, step_sizes, 6, **options)


def _step_problem():
    return untyped.StepSizeProblem([1.0, 2.0], [1.0, 1.0])


# Of a number for each eigenvalue the margins were those of no optimizer: the first one
# alone is far outside of stability here, and the answer was inside.
STEEP, SEVERAL = jnp.diag(jnp.array([1.0, 10.0])), jnp.array([3.0, 0.1])
OF_SCALARS = {
    "linear_margin": ("alpha", lambda x: untyped.linear_margin(STEEP, x, EYE)),
    "preconditioned_margin": (
        "alpha",
        lambda x: untyped.preconditioned_margin(STEEP, x, EYE),
    ),
    "disturbed_margin": (
        "alpha",
        lambda x: untyped.disturbed_margin(STEEP, x, EYE, jnp.ones(2), jnp.ones(2)),
    ),
    "momentum_margin": ("step_size", lambda x: untyped.momentum_margin(STEEP, x, 0.9)),
    "heavy_ball_margin": ("step_size", lambda x: untyped.heavy_ball_margin(STEEP, x, 0.9)),
    "heavy_ball_margin's decay": (
        "decay",
        lambda x: untyped.heavy_ball_margin(STEEP, 0.1, x / 10),
    ),
    "exploding_bound": ("step_size", lambda x: _step_problem().exploding_bound(x, 3).log),
    "log_objective": ("step_size", lambda x: _step_problem().log_objective(x, 3)),
}


@pytest.mark.parametrize("name", OF_SCALARS)
def test_several_numbers_for_one_are_refused_and_go_by_vmap(as_users_call, name):
    argument, function = OF_SCALARS[name]
    message = rf"`{argument}` must be one real number \(for several .*got shape \(2,\)"
    for transform in (lambda f: f, jax.jit):
        with pytest.raises(ValueError, match=message):
            transform(function)(SEVERAL)
    by_vmap = jtu.tree_leaves(jax.jit(jax.vmap(function))(SEVERAL))
    one_by_one = zip(*(jtu.tree_leaves(function(x)) for x in SEVERAL), strict=True)
    for ours, each in zip(by_vmap, one_by_one, strict=True):
        np.testing.assert_allclose(ours, jnp.stack(each), rtol=1e-9)
    slope = jax.grad(lambda x: jtu.tree_leaves(function(x))[0])(SEVERAL[1])
    assert jnp.isfinite(slope)


def test_a_horizon_that_is_not_whole_is_nan_inside_of_jit(as_users_call):
    problem = _step_problem()
    best = jax.jit(lambda steps: problem.best_step_size(steps))
    assert np.isnan(best(3.7)) and np.isfinite(best(3))


# As a caller without a type checker has it.
parts: Any = eqs


class _Own(eqs.tasks.AbstractTask):
    function: Any = eqx.field(static=True)
    loss_bounds: Any = (0.0, 5.0)

    def init(self, *, key):
        return jnp.ones(3)

    def loss(self, params, *, key, split=eqs.tasks.Split.TRAIN) -> Any:
        return self.function(params)


def _trained(loss):
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    return eqs.train(_Own(function=loss), sgd, steps=1, key=jr.key(0))


def _safeguarded(energy):
    sgd = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(eqs.GradientDirection()))
    optimizer = eqs.Safeguarded(sgd, sgd, eqs.EnergyDecrease(energy))
    params = jnp.ones(3)
    return optimizer.update(params, optimizer.init(params), params)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: _safeguarded(jnp.square),
            r"one floating-.* got shape \(3,\) and dtype fl",
        ),
        (lambda: _safeguarded(lambda x: (x[0], x)), "The energy must be .* a tuple of 2"),
        (lambda: _safeguarded(lambda x: None), "The energy must be .* got a NoneType"),
        (lambda: _safeguarded(3), r"`function` must be a function, say .*; got 3\."),
        (lambda: parts.EnergyDecrease(jnp.sum, "a"), "`factor` must be one number, .* 'a'"),
        (lambda: parts.PassedEnergyDecrease("a"), "`factor` must be one number, .* 'a'"),
        (lambda: parts.HeldOut("nope"), "There is no split 'nope': choose one of"),
        (lambda: parts.HeldOut("inner_vald"), "did you mean 'inner_valid'"),
        (
            lambda: eqs.InnerTraining(_Own(loss_bounds=5.0, function=jnp.sum)),
            r"say \(0\.0, 5\.0\); got 5\.0",
        ),
        (lambda: _trained(lambda x: x), r"The loss of _Own must .* got shape \(3,\) and"),
        (lambda: _trained(lambda x: jnp.array(3)), "one floating-.* and dtype int"),
        (lambda: _trained(lambda x: (jnp.sum(x), x)), "nothing besides; got a tuple of 2"),
        (
            lambda: eqs.tasks.with_label_noise(eqs.tasks.wine(), 0.5, splits="test"),
            r"say `\(Split\.TEST,\)`; got 'test'",
        ),
        (
            lambda: eqs.tasks.text_from_tokens(np.arange(100) * 10**8),
            "beyond them: number those that occur",
        ),
        (lambda: NQM.expected_loss(LINEAR, -1), r"from 0 to 2\*\*31 - 1 steps; got -1"),
        (lambda: NQM.mean(LINEAR, 2**31), r"from 0 to 2\*\*31 - 1 steps"),
        (lambda: NQM.covariance(LINEAR, 1.5), "a whole number of steps; got 1.5"),  # pyright: ignore
        (lambda: NQM.mean_loss(LINEAR, 1.5), "`steps` must be a whole number"),  # pyright: ignore
        (lambda: draw_least_squares(0, 3, 0.1, key=jr.key(0)), "`samples` must be"),
        (
            lambda: draw_least_squares(20, 3, 0.1, key=jr.key(0)).split(20),
            "leave some of the 20 samples",
        ),
        (
            lambda: LeastSquares(jnp.ones((3, 2)), jnp.ones((3, 1)), jnp.ones(2)),
            r"`targets` must be a vector of real numbers; got shape \(3, 1\)",
        ),
        (
            lambda: LeastSquares(jnp.ones((3, 2)), jnp.ones(2), jnp.ones(2)),
            r"a row for each of the `targets`.* got the shapes \(3, 2\), \(2,\) and \(2,\)",
        ),
        (lambda: LeastSquares(EYE, jnp.ones(2), jnp.ones(3)), "a column for each number"),
        (
            lambda: untyped.StepSizeProblem([1.0, jnp.inf], [1.0, 1.0]),
            "positive and finite",
        ),
        (lambda: _step_problem().log_objective(0.1, 2.5), "a whole number of .*; got 2.5"),
        (lambda: _step_problem().best_step_size(3.7), "`steps` must be a whole .* got 3.7"),
        (lambda: _step_problem().best_step_size(0), "`steps` must be a whole number"),
        (lambda: _iterates([0.1], freeze=-1.0), "`freeze` must be at least 0; got -1.0"),
        (lambda: _iterates([0.1], freeze=jnp.nan), "`freeze` must be at least 0; got nan"),
        (lambda: _iterates([0.1, jnp.nan]), "`step_sizes` must be finite"),
    ],
)
def test_what_was_wrong_without_a_word_is_refused(call, message, as_users_call):
    with pytest.raises(ValueError, match=message):
        call()


def test_lists_and_arrays_of_double_precision_are_taken_as_they_are(as_users_call):
    hessian, zeros = [[2, 1], [1, 2]], [[0, 0], [0, 0]]
    floats, nothing = jnp.asarray(hessian, float), jnp.zeros((2, 2))
    ours = untyped.linear_margin(hessian, 0.1, zeros)
    assert ours.exact == linear_margin(floats, 0.1, nothing).exact
    narrow = NoisyQuadratic(jnp.eye(2, dtype=jnp.float32), jnp.zeros((2, 2)))
    assert narrow.noise.dtype == jnp.float32
    whole: Any = untyped.NoisyQuadratic(hessian, zeros, [1, 1])
    same: Any = NoisyQuadratic(floats, nothing, jnp.ones(2))
    for t in (0, 5, np.int64(5), jnp.asarray(5)):
        assert whole.expected_loss(LINEAR, t) == same.expected_loss(LINEAR, t)
    problem = untyped.StepSizeProblem([1, 2], [1, 1])
    twin = StepSizeProblem(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0]))
    assert problem.log_objective(0.1, 5) == twin.log_objective(jnp.asarray(0.1), 5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_numbers_of_16_bits_are_computed_with_in_float32(dtype):
    narrow, wide = (EYE.astype(dtype) / 2, EYE.astype(jnp.float32) / 2)
    ours, theirs = (linear_margin(h, 0.25, h) for h in (narrow, wide))
    assert ours.exact.dtype == jnp.float32 and ours.exact == theirs.exact
    assert NoisyQuadratic(narrow, narrow).noise_root.dtype == jnp.float32


@pytest.mark.parametrize("margin", ["momentum_margin", "heavy_ball_margin"])
def test_margins_of_whole_numbers_are_those_of_floats(margin, as_users_call):
    function, hessian = getattr(eqs.analysis, margin), jnp.diag(jnp.array([2, 1]))
    ours, floats = (function(h, 3.0, 0.9) for h in (hessian, hessian.astype(float)))
    np.testing.assert_allclose(ours.exact, floats.exact, rtol=1e-5)
    np.testing.assert_allclose(ours.sufficient, floats.sufficient, rtol=1e-5)
