"""Tasks, inner training and the outer loop."""

import contextlib
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.monitoring
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest
from jaxtyping import TypeCheckError

import equistar as eqs
from equistar._meta_training import unstack_metrics
from equistar._numerics import all_finite

from .helpers import QuadraticDescent


def _sgd(rate):
    return eqs.LearnedOptimizer(
        nominal=eqs.NominalTerm(eqs.GradientDirection(), scale=rate)
    )


@pytest.fixture(scope="module")
def digits():
    return eqs.tasks.digits_mlp()


def test_digits_are_the_real_ones_in_four_disjoint_splits(digits):
    splits = [digits.dataset[s] for s in eqs.tasks.Split]
    assert [len(s.targets) for s in splits] == [1258, 180, 179, 180]
    assert splits[0].inputs.shape[1:] == (8, 8) and splits[0].inputs.dtype == jnp.uint8
    everything = np.concatenate([np.asarray(s.inputs) for s in splits]).reshape(1797, -1)
    import sklearn.datasets

    original = sklearn.datasets.load_digits(return_X_y=True)[0]
    # The same images, in another order.
    order = lambda x: x[np.lexsort(x.T)]
    np.testing.assert_array_equal(order(everything), order(original))


def test_digits_mlp_starts_at_the_entropy_of_ten_classes(digits):
    params = digits.init(key=jr.key(0))
    sizes = {p.shape for p in jtu.tree_leaves(params)}
    assert sizes == {(32, 64), (32,), (32, 32), (10, 32), (10,)}
    for split in eqs.tasks.Split:
        loss = digits.loss(params, key=jr.key(1), split=split)
        assert abs(loss - np.log(10)) < 0.2
    assert digits.loss_bounds == (0.0, 1.5 * np.log(10))


def test_a_batch_holds_matching_inputs_and_labels():
    inputs = np.arange(40).reshape(40, 1)
    data = eqs.tasks.dataset_from_arrays(inputs, np.arange(40) % 3)
    x, y = data[eqs.tasks.Split.TRAIN].batch(64, key=jr.key(0))
    np.testing.assert_array_equal(x[:, 0] % 3, y)
    assert data.classes == 3 and data.in_shape == (1,)


@pytest.mark.parametrize(
    "inputs, labels, message",
    [
        (np.ones((5, 2)), np.arange(5), "at least 10"),
        (np.ones((20, 2)), np.arange(19), "one label for each"),
        (np.ones((20, 2)), np.zeros(20), "integers"),
        (np.ones((20, 2)), ["a", "b"] * 10, r"pass `np\.unique\(labels, return_inverse"),
        (np.ones((20, 2)), -np.ones(20, int), r"classes 0, 1, \.\.\.; got -1 to -1"),
        (np.ones(20), np.zeros(20, int), r"pass `inputs\[:, None\]`"),
        (np.full((20, 2), np.nan), np.arange(20), "finite"),
        (np.ones((20, 2)), np.arange(20)[:, None], r"shape \(20, 1\): pass .*\[:, 0\]"),
        (np.ones((20, 2)), np.eye(20, dtype=int), r"`labels\.argmax\(1\)`"),
        (np.ones((20, 2)), np.zeros(20, int), "two classes at least"),
        (np.ones((20, 2)), np.ones(20, int), "two classes at least; all of these are 1"),
        (np.ones((20, 2)), np.full(20, 2**40), r"return_inverse=True"),
        (np.full((20, 2), 2**31), np.arange(20), "kept as int32.* beyond it"),
        (np.full((20, 2), 1e39), np.arange(20), "kept as float32.* beyond it"),
        (np.ones((20, 2), complex), np.arange(20), "real numbers.*complex128"),
        (np.array(1.0), np.arange(20), r"got shape \(\)"),
    ],
)
def test_data_that_make_no_sense_are_refused(as_users_call, inputs, labels, message):
    with pytest.raises(ValueError, match=message):
        eqs.tasks.dataset_from_arrays(inputs, labels)


def test_a_wrong_task_name_lists_the_right_ones():
    with pytest.raises(ValueError, match=r"'imagenet'.*digits_mlp"):
        eqs.tasks.named("imagenet")


# Some of optax's transformations take no loss, and no parameters.
@pytest.mark.parametrize("optimizer", [_sgd, optax.sgd, lambda rate: optax.scale(-rate)])
def test_training_a_quadratic_is_its_closed_form(optimizer):
    # p' = (1 - a h) p, so l_t = 1/2 sum h ((1 - a h)^t p_0)^2.
    curvature, rate, steps = jnp.array([1.0, 0.5]), 0.3, 6
    task = eqs.tasks.Quadratic(curvature)
    result = eqs.train(task, optimizer(rate), steps=steps, key=jr.key(3))
    start = task.init(key=jr.split(jr.key(3))[0])
    factors = (1 - rate * curvature)[None] ** jnp.arange(steps + 1.0)[:, None]
    path = factors * start[None]
    np.testing.assert_allclose(result.params, path[-1], rtol=1e-12)
    expected = 0.5 * jnp.sum(curvature[None] * path[:-1] ** 2, axis=1)
    np.testing.assert_allclose(result.losses, expected, rtol=1e-12)


def test_recorded_losses_are_clipped_and_never_nan():
    task = eqs.tasks.Quadratic(jnp.array([1.0]), loss_bounds=(0.0, 5.0))
    unroll, diverging = eqs.InnerTraining(task), _sgd(-1e150)
    state = unroll.init(diverging, key=jr.key(0))
    loss = jnp.zeros(())
    for _ in range(4):
        state, loss = unroll.step(diverging, state, key=jr.key(1))
        assert 0 <= loss <= 5
    assert loss == 5 and not jnp.all(jnp.isfinite(state.params))


def test_meta_training_finds_the_best_step_size():
    # One curvature h: the step size 1/h reaches the optimum in one step.
    unroll = QuadraticDescent(jnp.array([2.0]), jnp.array([1.0]))
    result = eqs.meta_train(
        unroll,
        eqs.PES(5, 8, 0.01, eqs.ConstantLength(10)),
        jnp.array(0.1),
        optax.adam(1e-2),
        steps=300,
        key=jr.key(0),
    )
    np.testing.assert_allclose(result.theta, 0.5, atol=0.03)
    assert result.history.meta_loss.shape == (300,)
    assert result.result == eqs.RESULTS.successful


class _Broken(eqs.AbstractUnroll):
    def init(self, theta, *, key):
        return jnp.zeros(())

    def step(self, theta, carry, *, key):
        return carry, theta


class _NaNEstimator(eqs.AbstractEstimator):
    """Gives NaN on every second step, else 1."""

    @property
    def steps(self):
        return 1

    @property
    def warm_up(self):
        return 0

    def init(self, unroll, theta, *, key):
        return jnp.zeros((), jnp.int32)

    def estimate(self, unroll, theta, state, *, key):
        zero = jnp.zeros((), jnp.int32)
        gradient = jnp.where(state % 2 == 1, jnp.nan, 1.0)
        return eqs.MetaGradient(gradient, jnp.zeros(()), zero, zero, zero), state + 1


def test_a_meta_gradient_that_is_not_finite_is_skipped_whole_and_counted():
    result = eqs.meta_train(
        _Broken(), _NaNEstimator(), jnp.zeros(()), optax.sgd(0.5), steps=6, key=jr.key(0)
    )
    np.testing.assert_allclose(result.theta, -1.5)
    assert list(result.history.skipped) == [0, 1, 1, 2, 2, 3]


def test_too_many_skipped_steps_stop_the_run_with_a_result():
    run = lambda throw: eqs.meta_train(
        _Broken(),
        _NaNEstimator(),
        jnp.zeros(()),
        optax.sgd(0.5),
        steps=50,
        key=jr.key(0),
        max_skipped=2,
        throw=throw,
    )
    assert run(False).result == eqs.RESULTS.no_meta_gradient
    assert len(run(False).history.meta_loss) == 4
    with pytest.raises(RuntimeError, match="non-finite meta-gradient"):
        run(True)
    with pytest.raises(ValueError, match="`max_skipped` must be at least 1"):
        eqs.meta_train(
            _Broken(), _NaNEstimator(), 0.0, steps=1, key=jr.key(0), max_skipped=0
        )


def test_the_norm_of_a_gradient_whose_square_overflows_is_logged():
    class Steep(eqs.AbstractUnroll):
        def init(self, theta, *, key):
            return jnp.zeros(())

        def step(self, theta, carry, *, key):
            return carry, 3e200 * theta["a"] + 4e200 * theta["b"].astype(float)

    theta = {"a": jnp.zeros(()), "b": jnp.zeros((), jnp.float32)}
    theta = {"a": theta["a"], "b": theta["b"].astype(jnp.float64)}
    estimator = eqs.FullBackprop(1, 1)
    result = eqs.meta_train(
        Steep(), estimator, theta, optax.sgd(1e-200), steps=1, key=jr.key(0)
    )
    np.testing.assert_allclose(result.history.gradient_norm, [5e200], rtol=1e-12)


def test_a_history_comes_apart_into_what_loggers_are_told():
    told = []

    class Kept(eqs.AbstractLogger):
        def __call__(self, step, metrics, theta):
            told.append(metrics)

    arguments = _Broken(), _NaNEstimator(), jnp.zeros(()), optax.sgd(0.5)
    history = eqs.meta_train(*arguments, steps=4, key=jr.key(0), logger=Kept()).history
    # Arrays of one number each, not NumPy's scalars.
    kinds = lambda metrics: [(type(x), x.dtype, x.shape) for x in vars(metrics).values()]
    assert kinds(told[0])[0] == (np.ndarray, np.dtype(float), ())
    for apart, one in zip(unstack_metrics(history), told, strict=True):
        assert kinds(apart) == kinds(one)
        jtu.tree_map(np.testing.assert_array_equal, apart, one)


def test_a_plain_function_is_a_logger():
    # Under the type checker of the tests, as in a user's own package.
    seen = {}
    theta = eqs.meta_train(
        _Broken(),
        _NaNEstimator(),
        jnp.zeros(()),
        optax.sgd(0.5),
        steps=3,
        key=jr.key(0),
        logger=lambda step, metrics, theta: seen.update({step: float(theta)}),
    ).theta
    assert seen == {1: -0.5, 2: -0.5, 3: -1.0} and theta == -1


def test_metrics_hold_the_numbers_of_one_step_or_of_many_but_not_of_both():
    # Under the type checker of the tests, which reads the annotations.
    def of(steps, counts):
        x, n = np.zeros(steps), np.zeros(counts, int)
        return eqs.Metrics(x, x, n, n, n, n, unroll_losses=np.zeros((*steps, 2)))

    assert of((), ()).unroll_losses.shape == (2,)
    assert of((5,), (5,)).unroll_losses.shape == (5, 2)
    with pytest.raises(TypeCheckError):
        of((5,), ())


def test_an_interrupt_keeps_what_was_trained():
    class Interrupt(eqs.AbstractLogger):
        def __call__(self, step, metrics, theta):
            if step == 3:
                raise KeyboardInterrupt

    result = eqs.meta_train(
        _Broken(),
        _NaNEstimator(),
        jnp.zeros(()),
        optax.sgd(0.5),
        steps=50,
        key=jr.key(0),
        logger=Interrupt(),
    )
    assert result.result == eqs.RESULTS.interrupted
    assert len(result.history.meta_loss) == 3 and result.state.step == 3


def test_the_paper_decays_the_trunk_and_the_blackbox_heads_only():
    star = eqs.STAR(key=jr.key(0))
    mask = eqs.blackbox_mask(star)
    decayed = sum(
        x.size
        for x, m in zip(jtu.tree_leaves(star), jtu.tree_leaves(mask), strict=True)
        if m
    )
    # 160 + 20 of the trunk, 5 + 5 of the direction and the blackbox magnitude.
    assert decayed == 190
    assert not any(jtu.tree_leaves(mask.nominal) + jtu.tree_leaves(mask.accumulators))
    assert not any(jtu.tree_leaves(eqs.blackbox_mask({"a": jnp.ones(2)})))


def test_scales_do_not_decay_and_an_optimizer_inside_of_another_does():
    # Stored as its logarithm, a scale of 1e-3 would be drawn to 1.
    scale = eqs.LearnedScale(1e-3)
    magnitude = eqs.MagnitudeController(scale=scale, key=jr.key(0))
    blackbox = eqs.BlackboxTerm(magnitude=magnitude, scale=scale, key=jr.key(1))
    scaled = eqs.LearnedOptimizer(
        features=eqs.AdafactorFeatures(),
        network=eqs.BlackboxMLP(key=jr.key(2)),
        blackbox=blackbox,
    )
    mask: Any = eqs.blackbox_mask(scaled)
    assert mask.blackbox.direction.weight and mask.blackbox.magnitude.head.weight
    assert not mask.blackbox.scale.log and not mask.blackbox.magnitude.scale.log
    fallback = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    safe = eqs.Safeguarded(scaled, fallback, eqs.StepBound(10.0))
    inner: Any = eqs.blackbox_mask({"safe": safe})["safe"]
    assert eqx.tree_equal(inner.learned, mask)
    assert not any(jtu.tree_leaves(inner.fallback))


def test_default_outer_is_clipped_adamw():
    # From zero moments AdamW's first step is -lr (sign(g) + wd theta), whatever |g|.
    star = eqs.STAR(key=jr.key(0), direction_init=eqs.release_init)
    outer: Any = eqs.default_outer(1e-2, 0.5)
    grads = jtu.tree_map(lambda x: jnp.full_like(x, 1e6), star)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = outer.update(grads, outer.init(star), star)
    blackbox = star.blackbox.direction.weight
    np.testing.assert_allclose(
        updates.blackbox.direction.weight, -1e-2 * (1 + 0.5 * blackbox), rtol=1e-6
    )
    np.testing.assert_allclose(updates.nominal.magnitude.head.weight, -1e-2, rtol=1e-6)


def test_meta_training_star_on_digits_lowers_the_meta_loss_and_is_reproducible(digits):
    run = lambda: eqs.meta_train(
        eqs.InnerTraining(digits),
        eqs.PES(20, 4, 0.01, eqs.ConstantLength(100)),
        eqs.STAR(key=jr.key(0)),
        eqs.default_outer(3e-3),
        steps=40,
        key=jr.key(1),
    )
    one, two = run(), run()
    assert one.history.meta_loss[-9:].mean() < one.history.meta_loss[:9].mean() - 0.2
    assert isinstance(one.theta, eqs.STAR)
    for a, b in zip(jtu.tree_leaves(one.theta), jtu.tree_leaves(two.theta), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_outer_optimizer_is_told_the_meta_loss():
    unroll = QuadraticDescent(jnp.array([2.0]), jnp.array([1.0]))
    estimator = eqs.PES(5, 2, length=eqs.ConstantLength(10))
    run = lambda outer: eqs.meta_train(
        unroll, estimator, jnp.array(0.1), outer, steps=4, key=jr.key(0)
    )
    plateau = optax.contrib.reduce_on_plateau(patience=1, factor=0.5, rtol=1.0)
    result = run(optax.chain(optax.sgd(0.1), plateau))
    # No meta-loss is below nothing of the first: the scale falls with the others.
    assert float(result.state.outer_state[1].scale) < 1
    with pytest.raises(ValueError, match="without a line search"):
        run(optax.lbfgs())


@pytest.mark.parametrize("optimizer", [optax.adam(1e-3), optax.lbfgs()])
def test_optimizers_of_optax_train_under_strict_promotion(optimizer):
    # The promotion of these tests is strict already.
    task = eqs.tasks.Quadratic(jnp.ones(2, jnp.float32))
    with jax.numpy_dtype_promotion("strict"):
        result = eqs.train(task, optimizer, steps=3, key=jr.key(0))
    assert result.losses[-1] < result.losses[0]


@pytest.mark.parametrize("optimizer", [optax.sgd(0.1), _sgd(0.1)], ids=["optax", "learned"])
@pytest.mark.parametrize(
    "start, message", [(1j, "real and imaginary parts"), (1, "must be floating-point")]
)
def test_parameters_that_are_no_real_numbers_are_refused(optimizer, start, message):
    class Own(eqs.tasks.AbstractTask):
        loss_bounds: tuple[float, float] = eqx.field(default=(0.0, 1.0), static=True)

        def init(self, *, key):
            return jnp.asarray([start])

        def loss(self, params, *, key, split=eqs.tasks.Split.TRAIN):
            return jnp.sum(jnp.abs(params) ** 2)

    with pytest.raises(ValueError, match=message):
        eqs.train(Own(), optimizer, steps=1, key=jr.key(0))


@pytest.mark.parametrize("verb", ["train", "meta_train"])
def test_no_steps_are_refused(verb):
    task = eqs.tasks.Quadratic(jnp.ones(1))
    with pytest.raises(ValueError, match="at least 1"):
        if verb == "train":
            eqs.train(task, _sgd(0.1), steps=0, key=jr.key(0))
        else:
            unroll = eqs.InnerTraining(task)
            eqs.meta_train(unroll, eqs.PES(), _sgd(0.1), steps=0, key=jr.key(0))


def test_arguments_of_another_kind_are_named(as_users_call):
    task, star, key = eqs.tasks.digits_mlp(), eqs.STAR(key=jr.key(0)), jr.key(1)
    with pytest.raises(ValueError, match=r"`optimizer` must be .*got 'star-best'"):
        eqs.train(task, "star-best", steps=2, key=key)  # pyright: ignore
    with pytest.raises(ValueError, match=r"`task` must be .*got 'digits_mlp'"):
        eqs.train("digits_mlp", star, steps=2, key=key)  # pyright: ignore
    with pytest.raises(ValueError, match=r"`task` must be"):
        eqs.InnerTraining(star)  # pyright: ignore
    unroll = eqs.InnerTraining(task)
    with pytest.raises(ValueError, match=r"`estimator` is a class .* `PES\(\)`"):
        eqs.meta_train(unroll, eqs.PES, star, steps=1, key=key)  # pyright: ignore
    with pytest.raises(ValueError, match=r"`outer` must be .*got 0\.001"):
        eqs.meta_train(unroll, eqs.PES(), star, 1e-3, steps=1, key=key)  # pyright: ignore
    folder: Any = "my-run"
    with pytest.raises(ValueError, match=r"`Checkpoints\('my-run'\)`; got 'my-run'"):
        eqs.meta_train(unroll, eqs.PES(), star, steps=1, key=key, checkpoints=folder)
    after: Any = eqs.AfterUpdate
    with pytest.raises(ValueError, match=r"`meta_loss` .* pass `AfterUpdate\(\)`"):
        eqs.InnerTraining(task, after)
    held_out: Any = "held out"
    with pytest.raises(ValueError, match=r"`meta_loss` .*HeldOut.*\); got 'held out'"):
        eqs.InnerTraining(task, held_out)


@pytest.mark.parametrize("bounds", [(10.0, 0.0), (1.0, 1.0), (0.0, np.nan)])
def test_bounds_of_a_loss_are_a_lower_and_an_upper_one(bounds):
    task = eqs.tasks.Quadratic(jnp.ones(1), loss_bounds=bounds)
    with pytest.raises(ValueError, match=r"of Quadratic must be .* lower < upper"):
        eqs.InnerTraining(task)


def test_a_second_meta_step_does_not_compile_again():
    unroll = QuadraticDescent(jnp.array([2.0]), jnp.array([1.0]))
    estimator, outer = eqs.PES(5, 2, length=eqs.ConstantLength(10)), optax.sgd(0.1)
    state = eqs.meta_train_init(unroll, estimator, jnp.array(0.1), outer, key=jr.key(0))
    state, _ = eqs.meta_train_step(unroll, estimator, outer, state)
    with _no_compilation():
        for _ in range(3):
            state, _ = eqs.meta_train_step(unroll, estimator, outer, state)


def test_a_second_run_with_the_default_optimizer_does_not_compile_again():
    unroll = QuadraticDescent(jnp.array([2.0]), jnp.array([1.0]))
    estimator = eqs.PES(5, 2, length=eqs.ConstantLength(10))
    run = lambda: (
        eqs.meta_train(unroll, estimator, jnp.array(0.1), steps=1, key=jr.key(0)).theta
    )
    first = run()
    with _no_compilation():
        second = run()
    assert second == first


def test_a_run_can_begin_inside_of_jit_and_vmap():
    unroll = QuadraticDescent(jnp.array([2.0]), jnp.array([1.0]))
    estimator, outer = eqs.PES(5, 2, length=eqs.ConstantLength(10)), optax.sgd(0.1)

    @jax.jit
    def begin(theta, key):
        return eqs.meta_train_init(unroll, estimator, theta, outer, key=key)

    advance = jax.jit(lambda s: eqs.meta_train_step(unroll, estimator, outer, s)[0])
    theta, key = jnp.array(0.1), jr.key(0)
    outside = eqs.meta_train_init(unroll, estimator, theta, outer, key=key)
    several = jax.vmap(begin)(theta[None], key[None])
    with jax.set_mesh(eqs.particle_mesh(jax.devices()[:1])):
        on_a_mesh = begin(theta, key)
    for state in (begin(theta, key), jtu.tree_map(lambda x: x[0], several), on_a_mesh):
        np.testing.assert_allclose(advance(state).theta, advance(outside).theta, rtol=1e-12)
    # An array that stands twice in a state cannot be donated.
    arrays = [x for x in jtu.tree_leaves(outside) if eqx.is_inexact_array(x) or x.ndim == 0]
    assert len({id(x) for x in arrays}) == len(arrays)


@contextlib.contextmanager
def _no_compilation():
    compiled = []

    def watch(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if "compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(watch)
    yield
    jax.monitoring.clear_event_listeners()
    assert not compiled


class _Hopeless(eqs.tasks.AbstractTask):
    loss_bounds: tuple[float, float] = eqx.field(default=(0.0, 1.0), static=True)

    def init(self, *, key):
        return jnp.ones(1)

    def loss(self, params, *, key, split=eqs.tasks.Split.TRAIN):
        return jnp.nan * jnp.sum(params)


def _run_of_no_use(steps=25, **options):
    unroll = eqs.InnerTraining(_Hopeless())
    pes = eqs.PES(window=2, pairs=3, length=10)
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    return eqs.meta_train(unroll, pes, sgd, steps=steps, key=jr.key(0), **options)


def test_a_run_whose_pairs_carry_no_signal_warns_once(tmp_path):
    said = "Meta-step 20: 100% of the pairs carry no signal .* a smaller sigma"
    with pytest.warns(UserWarning, match=said) as caught:
        _run_of_no_use(checkpoints=eqs.Checkpoints(tmp_path))
    assert len(caught) == 1
    # A run that goes on has said it, and with a share of 1 none does.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run_of_no_use(30, checkpoints=eqs.Checkpoints(tmp_path))
        _run_of_no_use(warn_share=1)


@pytest.mark.parametrize("share", [0, 1.5, float("nan")])
def test_a_share_that_makes_no_sense_is_refused(share):
    with pytest.raises(ValueError, match="`warn_share` must be"):
        _run_of_no_use(warn_share=share)


@pytest.mark.parametrize("trainable", [eqx.is_array, lambda x: True])
def test_only_inexact_arrays_can_be_trained(trainable):
    theta = {"rate": jnp.ones(()), "table": jnp.arange(3)}
    message = r"`trainable` is true also of theta\['table'\], which is shape \(3,\)"
    with pytest.raises(ValueError, match=message):
        eqs.meta_train(
            _Broken(), eqs.PES(2, 1), theta, steps=1, key=jr.key(0), trainable=trainable
        )


def test_a_run_whose_device_fails_says_why():
    def fail(step, metrics, theta):
        if step == 2:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 4 GB too much")

    with pytest.warns(UserWarning, match="ended early: RESOURCE_EXHAUSTED: 4 GB too much"):
        result = eqs.meta_train(
            _Broken(),
            _NaNEstimator(),
            jnp.zeros(()),
            optax.sgd(0.5),
            steps=5,
            key=jr.key(0),
            logger=fail,
            throw=False,
        )
    assert result.result == eqs.RESULTS.process_lost
    assert len(result.history.meta_loss) == 2


def test_an_array_of_numpy_that_is_not_finite_is_found():
    narrow = np.array([jnp.nan], jnp.bfloat16)
    for array in (np.array([1.0, np.nan]), np.float32(np.inf), narrow):
        assert not all_finite({"w": array, "n": 3, "table": np.arange(2)})
    assert all_finite({"w": np.ones(2), "x": jnp.ones(2), "name": "x"})


class OwnMetaLoss(eqs.AbstractMetaLoss):
    give: Any = eqx.field(static=True)

    def __call__(self, task, before, after, training_loss, *, key):
        return self.give(training_loss)


@pytest.mark.parametrize(
    "give, said",
    [
        (lambda loss: None, "a NoneType"),
        (lambda loss: loss.astype(int), r"shape \(\) and dtype int64"),
        (lambda loss: loss.astype(complex), r"shape \(\) and dtype complex128"),
        (lambda loss: jnp.stack([loss, loss]), r"shape \(2,\) and dtype float64"),
        (lambda loss: (loss, loss), "a tuple of 2"),
    ],
)
def test_a_meta_loss_that_is_not_one_number_is_named(as_users_call, give, said):
    task = eqs.tasks.Quadratic(jnp.ones(2))
    unroll, star = eqs.InnerTraining(task, OwnMetaLoss(give)), eqs.STAR(key=jr.key(0))
    message = f"meta-loss OwnMetaLoss must return one floating-point .*; got {said}"
    with pytest.raises(ValueError, match=message):
        eqs.meta_gradient(unroll, eqs.PES(2, 1), star, key=jr.key(0))
