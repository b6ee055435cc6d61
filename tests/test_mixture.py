"""Many unrolls at once, parts that are held, and data that change."""

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
from equistar._meta_training._feed import as_feed
from equistar._meta_training._meta_step import _estimate

from .helpers import QuadraticDescent


class _Slope(eqs.AbstractUnroll):
    """The loss `slope theta` at every step: its meta-gradient is `slope`."""

    slope: jnp.ndarray

    def init(self, theta, *, key):
        return jnp.zeros(())

    def step(self, theta, carry, *, key):
        (theta,) = jtu.tree_leaves(theta)
        return carry, jnp.sum(self.slope * theta)


BACKPROP = eqs.FullBackprop(2, 1)
KEYS = jr.split(jr.key(0))
TASK = eqs.tasks.Quadratic(jnp.ones(2))
# As a caller without a type checker has it.
untyped: Any = eqs


def _meta_train(unroll, theta: Any = jnp.zeros(()), steps=1, **options):
    outer = options.pop("outer", optax.sgd(1.0))
    estimator = options.pop("estimator", BACKPROP)
    settings = {"steps": steps, "key": jr.key(0)} | options
    return eqs.meta_train(unroll, estimator, theta, outer, **settings)


def _slopes(*slopes):
    return [_Slope(jnp.asarray(slope)) for slope in slopes]


def test_a_mixture_of_one_is_the_unroll_itself():
    unroll = QuadraticDescent(jnp.array([2.0]), jnp.array([1.0]))
    run = lambda unroll: _meta_train(
        unroll, jnp.array(0.1), 5, estimator=eqs.PES(3, 4, 0.1, 7)
    )
    alone, mixed = run(unroll), run(eqs.Mixture([unroll]))
    for a, b in zip(jtu.tree_leaves(alone), jtu.tree_leaves(mixed), strict=True):
        if eqx.is_inexact_array_like(a):
            np.testing.assert_array_equal(a, b)


def test_unrolls_that_differ_in_numbers_alone_share_a_program():
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    noisy = [eqs.tasks.Quadratic(jnp.ones(2), noise) for noise in (0.0, 0.1)]
    relative = [eqs.Relative(_slopes(6.0)[0], reference) for reference in (1.0, 3.0)]
    training = [eqs.InnerTraining(task) for task in noisy]

    def losses(unrolls, theta):
        _estimate._cached._clear_cache()  # pyright: ignore
        history = _meta_train(eqs.Mixture(unrolls), theta).history
        assert _estimate._cached._cache_size() == 1  # pyright: ignore
        return history.unroll_losses

    losses(training, sgd)
    np.testing.assert_allclose(losses(relative, jnp.ones(())), [[6, 6 / 3]], rtol=1e-12)


def test_the_gradients_are_averaged_by_weight():
    # (1 * 2 + 3 * 6) / 4 = 5, and the losses at theta = 1 likewise.
    result = _meta_train(eqs.Mixture(_slopes(2.0, 6.0), [1, 3]), jnp.ones(()))
    np.testing.assert_allclose(result.theta, 1 - 5.0, rtol=1e-12)
    np.testing.assert_allclose(result.history.meta_loss, [5.0], rtol=1e-12)
    np.testing.assert_allclose(result.history.unroll_losses, [[2.0, 6.0]], rtol=1e-12)


def test_normalised_gradients_count_alike_whatever_their_size():
    # One is a million times the other, so each counts as a step of one half.
    mixture = eqs.Mixture(_slopes(-1e-3, 1e3), combination=eqs.NormalisedMean())
    np.testing.assert_allclose(_meta_train(mixture, steps=3).theta, 0, atol=1e-12)
    slopes = _slopes([3e4, 0.0], [0.0, -2e-5])
    mixture = eqs.Mixture(slopes, [3, 1], eqs.NormalisedMean())
    theta = _meta_train(mixture, jnp.zeros(2), steps=2).theta
    np.testing.assert_allclose(theta, [-1.5, 0.5], rtol=1e-12)


def test_the_size_of_a_gradient_is_a_bias_corrected_average():
    # Of the squares 1 and 9 with decay 1/2: (1/2 1/2 1 + 1/2 9) / (3/4) = 19/3.
    combination = eqs.NormalisedMean(0.5)
    state, one = combination.init(1), jnp.ones(1)
    _, state = combination([jnp.array(1.0)], one, state)
    gradient, _ = combination([jnp.array(3.0)], one, state)
    np.testing.assert_allclose(gradient, 3 / np.sqrt(19 / 3), rtol=1e-12)


@pytest.mark.parametrize("scale", [1e25, 3e37, 1e-30])
def test_a_gradient_whose_square_overflows_leaves_its_unroll_in(scale):
    # Norms 5 a, 0 and 10 a with decay 1/2: the average of squares is (25/8 + 100/2) a^2,
    # and that of ones 7/8. All of it in float32.
    combination = eqs.NormalisedMean(0.5)
    a = jnp.float32(scale / 10)
    one = jnp.ones(1, jnp.float32)
    gradient = {"x": 3 * a, "y": 4 * a}
    nothing = jtu.tree_map(jnp.zeros_like, gradient)
    state = jtu.tree_map(lambda x: x.astype(jnp.float32), combination.init(1))
    for g in (gradient, nothing):
        _, state = combination([g], one, state)
    last = jtu.tree_map(lambda x: 2 * x, gradient)
    out, state = combination([last], one, state)
    size = np.sqrt((25 / 8 + 100 / 2) / (7 / 8))
    np.testing.assert_allclose(out["x"], 6 / size, rtol=1e-6)
    np.testing.assert_allclose(out["y"], 8 / size, rtol=1e-6)
    assert np.isfinite(state.root)


def test_the_largest_gradients_keep_a_finite_size():
    combination = eqs.NormalisedMean(0.5)
    top = jnp.full(100, jnp.finfo(jnp.float64).max)
    state = combination.init(1)
    for _ in range(3):
        out, state = combination([top], jnp.ones(1), state)
        # Sizes are kept to an eighth of the largest number, so that it comes to 8 units.
        np.testing.assert_allclose(out, 8, rtol=1e-12)
    out, state = combination([jnp.ones(100)], jnp.ones(1), state)
    assert np.all(np.isfinite(out)) and np.isfinite(state.root)


@pytest.mark.parametrize("combination", [eqs.WeightedMean(), eqs.NormalisedMean()])
def test_an_unroll_whose_gradient_is_not_finite_is_left_out(combination):
    mixture = eqs.Mixture(_slopes(jnp.nan, 1.0, 1.0), [8, 1, 1], combination)
    result = _meta_train(mixture, steps=2)
    np.testing.assert_allclose(result.theta, -2, rtol=1e-12)
    assert list(result.history.skipped) == [0, 0]
    # The losses of the others, of slope 1, are theta before the step.
    np.testing.assert_allclose(result.history.meta_loss, [0, -1], atol=1e-12)
    nothing = _meta_train(eqs.Mixture(_slopes(jnp.nan, jnp.inf), (), combination), steps=2)
    assert nothing.theta == 0 and list(nothing.history.skipped) == [1, 2]


def test_an_unroll_with_no_gradient_does_not_spoil_the_normalised_ones():
    mixture = eqs.Mixture(_slopes(0.0, 4.0), combination=eqs.NormalisedMean())
    np.testing.assert_allclose(_meta_train(mixture).theta, -0.5, rtol=1e-12)


def test_a_mixture_finds_the_step_size_that_is_best_for_both():
    # Steps of 1/2 and of 1/4 are best alone; a grid knows what is best for both.
    unrolls = [QuadraticDescent(jnp.array([h]), jnp.array([1.0])) for h in (2.0, 4.0)]
    result = _meta_train(
        eqs.Mixture(unrolls),
        jnp.array(0.1),
        300,
        estimator=eqs.FullBackprop(2, 1),
        outer=optax.adam(1e-2),
    )
    grid = np.linspace(0, 0.6, 60001)
    losses = sum(h / 2 * (1 + (1 - grid * h) ** 2) for h in (2.0, 4.0))
    np.testing.assert_allclose(result.theta, grid[np.argmin(losses)], atol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (([],), "at least one unroll"),
        ((_slopes(1.0, 2.0), [1.0]), "1 weights for 2 unrolls"),
        ((_slopes(1.0, 2.0), [1.0, 0.0]), "positive and finite"),
        ((_slopes(1.0), [jnp.inf]), "positive and finite"),
    ],
)
def test_a_mixture_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        eqs.Mixture(*arguments)


class OwnCombination(eqs.AbstractCombination):
    give: Any = eqx.field(static=True)
    begin: Any = eqx.field(default=jnp.zeros, static=True)

    def init(self, unrolls):
        return self.begin(unrolls)

    def __call__(self, gradients, weights, state):
        return self.give(gradients[0], state)


@pytest.mark.parametrize(
    "give, said",
    [
        (lambda g, s: g, r"return a pair, \(gradient, state\); got a dict"),
        (lambda g, s: None, "return a pair, .*; got a NoneType"),
        (lambda g, s: (g["x"], s), r"like those it combines: got .*\*.* for .*'x'"),
        (lambda g, s: (None, s), "a gradient like those it combines: got .*None"),
        (lambda g, s: ({"x": g["x"][:1]}, s), r"got float64 of shape \(1,\) for float64"),
        (lambda g, s: ({"x": g["x"].astype(jnp.float32)}, s), "got float32 .* for float64"),
        (lambda g, s: ({"x": 1.0}, s), "like those it combines: got 1.0 for float64"),
        (lambda g, s: (g, (s, s)), "return a state like that of init: got "),
        (lambda g, s: (g, s[0]), r"that of init: got float64 of shape \(\) for float64"),
    ],
)
def test_what_a_combination_may_not_return_is_named(as_users_call, give, said):
    mixture = eqs.Mixture(_slopes([1.0, 2.0], [3.0, 4.0]), combination=OwnCombination(give))
    theta, outer = {"x": jnp.zeros(2)}, optax.sgd(1.0)
    with pytest.raises(ValueError, match=f"^OwnCombination must .*{said}"):
        eqs.meta_train_init(mixture, BACKPROP, theta, outer, key=jr.key(0))


@pytest.mark.parametrize("begin", [lambda n: "start", lambda n: (jnp.zeros(n), 0.0)])
def test_a_combination_begins_with_arrays(as_users_call, begin):
    combination = OwnCombination(lambda g, s: (g, s), begin)
    mixture = eqs.Mixture(_slopes(1.0, 2.0), combination=combination)
    with pytest.raises(ValueError, match=r"^OwnCombination\.init must .*; got ('start'|0)"):
        _meta_train(mixture)


class OnlyTraining(eqs.tasks.AbstractTask):
    """A task without held-out data."""

    loss_bounds: tuple[float, float] = (0.0, 10.0)

    def init(self, *, key):
        return jnp.ones(2)

    def loss(self, params, *, key):  # pyright: ignore
        return jnp.sum(params**2)


SGD = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: untyped.Mixture(_slopes(1.0)[0]), r"list of unrolls, say `\[Inner"),
        (
            lambda: untyped.Mixture(_slopes(1.0), combination=untyped.WeightedMean),
            "`combination` is a class",
        ),
        (lambda: untyped.Mixture({"a": _slopes(1.0)[0]}), r"pass `list\(unrolls\.values"),
        (lambda: untyped.Mixture(_slopes(1.0, 2.0), ["a", "b"]), "`weights` must be num"),
        (lambda: untyped.Mixture(_slopes(1.0), 3), "`weights` must be a list of numbers"),
        (lambda: _meta_train(_slopes(1.0)[0], key=0), "`key` must be one PRNG key"),
        (lambda: eqs.train(TASK, eqs.STAR(key=jr.key(0)), steps=1, key=KEYS), "one PRNG"),
        (lambda: untyped.train_init(3, SGD, key=KEYS[0]), "`task` must be a task, say"),
        (lambda: eqs.train_init(TASK, untyped, key=KEYS[0]), r"`optimizer` must be an opt"),
        (
            lambda: eqs.meta_train(
                eqs.InnerTraining(TASK), eqs.PES(2, 1), jnp.ones(()), steps=1, key=KEYS[0]
            ),
            "`optimizer` must be an optimizer",
        ),
        (lambda: _meta_train(_slopes(1.0)[0], logger=3), "`logger` must be a function"),
        (lambda: _meta_train(_slopes(1.0)[0], logger=eqs.NoLogger), r"pass `NoLogger\(\)`"),
        (lambda: _meta_train(_slopes(1.0)[0], max_skipped="x"), "`max_skipped` must be a"),
        # Of NumPy's numbers one that is too small is refused, and not the kind.
        (
            lambda: _meta_train(_slopes(1.0)[0], max_skipped=np.int64(0)),
            "`max_skipped` must be at least 1; got 0",
        ),
        (
            lambda: _meta_train(_slopes(1.0)[0], trainable={"a": True}),
            "`trainable` must be",
        ),
        (lambda: untyped.default_outer("a"), "`learning_rate` must be a number"),
        (lambda: untyped.StepBound("a"), "`multiple` must be one number, say 10.0"),
        (
            lambda: untyped.LearnedOptimizer(accumulators=3),
            "must be a dict of accumulators",
        ),
        (lambda: untyped.STAR(key=KEYS[0], width=1.5), "`width` must be a whole number"),
        (lambda: eqs.train(OnlyTraining(), SGD, steps=2**31, key=KEYS[0]), "below 2"),
        (
            lambda: eqs.InnerTraining(OnlyTraining(), eqs.HeldOut()).step(
                SGD, eqs.train_init(OnlyTraining(), SGD, key=KEYS[0]), key=KEYS[0]
            ),
            "takes no `split`",
        ),
        (lambda: untyped.Relative(TASK, 1.0), "Quadratic is no unroll"),
        (lambda: untyped.RelativeFeed(_slopes(1.0)[0], 1.0), "`feed` must be"),
    ],
)
def test_arguments_of_another_kind_are_named(as_users_call, make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_unrolls_may_come_from_a_generator(as_users_call):
    mixture = untyped.Mixture(unroll for unroll in _slopes(1.0, 2.0))
    assert len(mixture.feeds) == 2 and mixture.weights == (0.5, 0.5)


def test_a_task_in_the_place_of_an_unroll_is_refused():
    with pytest.raises(ValueError, match=r"Quadratic is no unroll: wrap a task"):
        as_feed(eqs.tasks.Quadratic(jnp.ones(2)))


def test_a_held_part_neither_moves_nor_is_perturbed():
    class Watches(eqs.AbstractUnroll):
        """Its loss is 1 as long as `held` is what it was."""

        def init(self, theta, *, key):
            return jnp.zeros(())

        def step(self, theta, carry, *, key):
            return carry, jnp.where(theta["held"] == 3, 1.0, jnp.nan) + theta["moved"]

    theta = {"held": jnp.array(3.0), "moved": jnp.array(0.0)}
    pes = eqs.PES(2, 4, 0.1, 4)
    for trainable in (
        eqs.all_but(theta, lambda t: t["held"]),
        eqs.only(theta, lambda t: t["moved"]),
    ):
        result = _meta_train(
            Watches(), theta, 4, estimator=pes, trainable=trainable, outer=optax.adam(0.1)
        )
        assert result.theta["held"] == 3 and result.theta["moved"] < -0.1
        np.testing.assert_allclose(result.history.meta_loss[0], 1, atol=0.2)


def test_parts_of_an_optimizer_are_held():
    star = eqs.STAR(key=jr.key(0))
    trainable = eqs.only(star, lambda s: (s.nominal, s.blackbox))
    unroll = eqs.InnerTraining(eqs.tasks.Quadratic(jnp.ones(3)))
    trained = _meta_train(
        unroll,
        star,
        2,
        estimator=eqs.PES(2, 2, 0.1, 4),
        trainable=trainable,
        outer=eqs.default_outer(1e-2),
    ).theta
    assert eqx.tree_equal(trained.network, star.network)
    assert eqx.tree_equal(trained.accumulators, star.accumulators)
    assert not eqx.tree_equal(trained.nominal, star.nominal)


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="Nothing of `theta` is trainable"):
        _meta_train(_slopes(1.0)[0], jnp.zeros(()), trainable=False)


class _Rising(eqs.AbstractFeed):
    """Meta-step n goes through the slope n."""

    def at(self, step):
        return _Slope(jnp.asarray(float(step)))


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: eqs.Mixture([f])])
def test_a_feed_is_asked_for_each_meta_step(wrap, tmp_path):
    # 0 + 1 + 2 + 3, also when the run goes on from its middle.
    assert _meta_train(wrap(_Rising()), steps=4).theta == -6
    kept = eqs.Checkpoints(tmp_path)
    assert _meta_train(wrap(_Rising()), steps=2, checkpoints=kept).theta == -1
    assert _meta_train(wrap(_Rising()), steps=4, checkpoints=kept).theta == -6


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: eqs.Mixture([f])])
def test_single_meta_steps_go_through_a_feed_too(wrap):
    feed, estimator, outer = wrap(_Rising()), eqs.FullBackprop(1, 1), optax.sgd(1.0)
    state = eqs.meta_train_init(feed, estimator, jnp.zeros(()), outer, key=jr.key(0))
    step = lambda state: eqs.meta_train_step(feed, estimator, outer, state)[0]
    for _ in range(4):
        state = step(state)
    assert state.theta == -6
    with pytest.raises(ValueError, match="nothing can be fed"):
        jax.jit(step)(state)


def test_a_feed_can_be_relative_to_a_reference():
    assert _meta_train(eqs.RelativeFeed(_Rising(), 4.0), steps=4).theta == -6 / 4
