"""Tasks made of another task: what they change, and what they do not."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest

import equistar as eqs
from equistar import tasks

from .helpers import equations
from .test_tasks import TASKS


class Quartic(tasks.AbstractTask):
    """The mean over i of a_i p_i^4, whose smoothed gradient is known."""

    weights: Any
    loss_bounds: tuple[float, float]

    def __init__(self, weights):
        self.weights = weights
        self.loss_bounds = (0.0, 1e3)

    def init(self, *, key):
        return {"a": jr.normal(key, (2,)), "b": jr.normal(key, (1,))}

    def loss(self, params, *, key, split=tasks.Split.TRAIN):
        p = jnp.concatenate([params["a"], params["b"]])
        return jnp.sum(self.weights * p**4)


@pytest.fixture(scope="module")
def wine():
    return tasks.Classification(tasks.wine(), tasks.MLP((4,)), batch_size=8)


def test_reparametrised_losses_are_equal_and_gradients_scaled(wine):
    task = tasks.Reparametrised(wine, key=jr.key(0))
    params, key = task.init(key=jr.key(1)), jr.key(2)
    original = wine.init(key=jr.key(1))
    assert eqx.tree_equal(task.original(params), original, rtol=1e-12)
    value, grads = jax.value_and_grad(task.loss)(params, key=key)
    expected, slopes = jax.value_and_grad(wine.loss)(original, key=key)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    scaled = jtu.tree_map(jnp.multiply, slopes, task.scales)
    assert eqx.tree_equal(grads, scaled, rtol=1e-9, atol=1e-12)


def test_scales_are_log_uniform_and_each_tensor_has_its_own(wine):
    make = lambda key: tasks.Reparametrised(wine, key=key).scales
    scales = jax.vmap(make)(jr.split(jr.key(0), 250))
    logs = np.log10(np.stack(jtu.tree_leaves(scales)))
    assert logs.shape == (4, 250) and len(np.unique(logs)) == 1000
    # Uniform on [-3, 3]: the mean of 1,000 has a deviation of 0.055.
    assert logs.min() > -3 and logs.max() < 3
    assert abs(logs.mean()) < 0.22
    np.testing.assert_allclose(logs.std(), 6 / np.sqrt(12), rtol=0.06)


def test_low_precision_rounds_in_between_only(wine):
    task = tasks.LowPrecision(wine)
    params, key = task.init(key=jr.key(0)), jr.key(1)
    value, grads = jax.value_and_grad(task.loss)(params, key=key)
    expected, slopes = jax.value_and_grad(wine.loss)(params, key=key)
    assert value.dtype == expected.dtype
    for p, g, s in zip(*map(jtu.tree_leaves, (params, grads, slopes)), strict=True):
        assert g.dtype == p.dtype
        # bfloat16 has 8 bits: errors of some 2^-8 in each of the products.
        np.testing.assert_allclose(g, s, atol=0.03 * np.abs(s).max())
    assert 0 < abs(value - expected) < 0.03


def test_every_multiplication_is_in_the_low_precision(wine):
    task = tasks.LowPrecision(wine)
    params = task.init(key=jr.key(0))
    program = jax.make_jaxpr(lambda p: task.loss(p, key=jr.key(0)))(params)
    products = [e for e in equations(program.jaxpr) if e.primitive.name == "dot_general"]
    assert len(products) == 2
    assert {e.outvars[0].aval.dtype for e in products} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    "architecture",
    [
        tasks.Recurrent(tasks.LSTM(), 4, 3),
        tasks.Recurrent(tasks.GRU(), 4, 3),
        tasks.Recurrent(tasks.VanillaRNN(), 4, 3),
        tasks.Transformer(1, 4, 2),
    ],
    ids=["lstm", "gru", "rnn", "transformer"],
)
def test_sequence_models_run_in_bfloat16(architecture):
    text = tasks.text_from_tokens(np.arange(100) % 5)
    task = tasks.LowPrecision(tasks.LanguageModelling(text, architecture, 4, 2))
    params = task.init(key=jr.key(0))
    loss = eqx.filter_jit(lambda task, p: task.loss(p, key=jr.key(1)))
    value, expected = loss(task, params), loss(task.task, params)
    assert value.dtype == expected.dtype and 0 < abs(value - expected) < 0.03


def test_es_gradient_on_a_quadratic_is_the_exact_formula():
    curvature = jnp.array([1.0, 3.0])
    task = tasks.ESGradient(tasks.Quadratic(curvature), sigma=0.1)
    params = jnp.array([0.5, -1.0])
    key = jr.key(0)
    value, grad = jax.value_and_grad(task.loss)(params, key=key)
    np.testing.assert_allclose(value, 0.5 * (0.25 + 3.0), rtol=1e-12)
    # A difference over a pair is exact on a quadratic: g = (e . H p) e. So g is along e,
    # and its component along H p is a square.
    slope = curvature * params
    ratio = grad[0] / grad[1]
    e = jnp.array([ratio, 1.0])
    size = grad[1] / (e @ slope)
    assert size > 0
    np.testing.assert_allclose(grad, size * (e @ slope) * e, rtol=1e-9)
    # The same noise at any sigma.
    other = tasks.ESGradient(tasks.Quadratic(curvature), sigma=1.0)
    np.testing.assert_allclose(jax.grad(other.loss)(params, key=key), grad, rtol=1e-9)


def test_mean_es_gradient_is_that_of_the_smoothed_loss():
    weights, sigma = jnp.array([1.0, -0.5, 2.0]), 0.5
    task = tasks.ESGradient(Quartic(weights), sigma, pairs=4)
    params = {"a": jnp.array([0.5, 1.0]), "b": jnp.array([-0.3])}
    keys = jr.split(jr.key(0), 20_000)
    grads = jax.vmap(lambda key: jax.grad(task.loss)(params, key=key))(keys)
    grads = np.concatenate([grads["a"], grads["b"]], axis=1)
    p = np.array([0.5, 1.0, -0.3])
    # E[(p + s e)^4] = p^4 + 6 s^2 p^2 + 3 s^4.
    expected = np.asarray(weights) * (4 * p**3 + 12 * sigma**2 * p)
    error = grads.std(0) / np.sqrt(len(keys))
    assert np.all(np.abs(grads.mean(0) - expected) < 4 * error)
    # The plain gradient is far off: 12 s^2 p a is what smoothing adds.
    assert np.all(np.abs(4 * p**3 * np.asarray(weights) - expected) > 8 * error)


def test_meta_gradients_see_how_the_es_gradient_depends_on_the_parameters():
    task = tasks.ESGradient(Quartic(jnp.ones(3)), sigma=0.1)
    grad = lambda p: jax.grad(task.loss)(p, key=jr.key(0))["b"][0]
    at = lambda b: {"a": jnp.array([0.2, 0.3]), "b": jnp.array([b])}
    slope = jax.grad(grad)(at(0.4))["b"][0]
    step = 1e-5
    difference = (grad(at(0.4 + step)) - grad(at(0.4 - step))) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-6)


def test_es_gradients_with_respect_to_some_of_the_parameters():
    task = tasks.ESGradient(Quartic(jnp.ones(3)))
    params = task.init(key=jr.key(0))
    whole = jax.grad(task.loss)(params, key=jr.key(1))
    part = lambda b: task.loss({"a": params["a"], "b": b}, key=jr.key(1))
    np.testing.assert_allclose(jax.grad(part)(params["b"]), whole["b"], rtol=1e-12)


def test_the_loss_of_es_gradients_costs_one_evaluation():
    task = tasks.ESGradient(tasks.Quadratic(jnp.ones(2)), pairs=8)
    loss = lambda p: task.loss(p, key=jr.key(0))
    assert "8,2" not in str(jax.make_jaxpr(loss)(jnp.ones(2)))
    assert "8,2" in str(jax.make_jaxpr(jax.grad(loss))(jnp.ones(2)))


WRAPPERS = {
    "reparametrised": lambda task: tasks.Reparametrised(task, key=jr.key(0)),
    "low precision": tasks.LowPrecision,
    "gradient by ES": lambda task: tasks.ESGradient(task, pairs=2),
    "all of them": lambda task: tasks.ESGradient(
        tasks.LowPrecision(tasks.Reparametrised(task, key=jr.key(0)))
    ),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", TASKS)
def test_every_wrapper_takes_every_task_under_jit_vmap_and_scan(name, wrapper):
    task = WRAPPERS[wrapper](TASKS[name]())

    @eqx.filter_jit
    def descend(task, key):
        def step(params, key):
            value, grads = jax.value_and_grad(task.loss)(params, key=key)
            return jtu.tree_map(lambda p, g: p - 0.1 * g, params, grads), value

        return jax.lax.scan(step, task.init(key=key), jr.split(key, 3))

    # Traced, not compiled.
    params, losses = eqx.filter_eval_shape(jax.vmap(descend, (None, 0)), task, _keys(2))
    first = eqx.filter_eval_shape(lambda t: t.init(key=jr.key(0)), task)
    assert losses.shape == (2, 3)
    for before, after in zip(jtu.tree_leaves(first), jtu.tree_leaves(params), strict=True):
        assert after.shape == (2, *before.shape) and after.dtype == before.dtype


def _keys(n):
    return jr.split(jr.key(0), n)


def test_wrappers_meta_train_by_es_and_by_back_propagation():
    inner = tasks.Quadratic(jnp.ones(2), 0.1)
    task = tasks.ESGradient(
        tasks.LowPrecision(tasks.Reparametrised(inner, 0.5, 2.0, key=jr.key(0)))
    )
    unroll = eqs.InnerTraining(task)
    theta = eqs.LearnedOptimizer(
        nominal=eqs.NominalTerm(eqs.GradientDirection(), scale=0.1)
    )

    # Under jit, vmap and scan, with a derivative through all of them.
    def episode(theta, key):
        body = lambda c, k: unroll.step(theta, c, key=k)
        carry = unroll.init(theta, key=key)
        return jnp.mean(jax.lax.scan(body, carry, jr.split(key, 3))[1])

    @eqx.filter_jit
    @eqx.filter_value_and_grad
    def meta_loss(theta, keys):
        return jnp.mean(jax.vmap(lambda k: episode(theta, k))(keys))

    value, grad = meta_loss(theta, jr.split(jr.key(0), 2))
    leaves = jtu.tree_leaves(eqx.filter(grad, eqx.is_inexact_array))
    assert np.isfinite(value) and all(np.all(np.isfinite(g)) for g in leaves)


def test_label_noise_redraws_a_share_of_the_training_labels():
    clean = tasks.digits()
    noisy = tasks.with_label_noise(clean, 0.5, seed=3)
    train, valid = tasks.Split.TRAIN, tasks.Split.INNER_VALID
    changed = noisy[train].targets != clean[train].targets
    # Of those redrawn, one in ten is right by chance; the deviation is 0.014.
    assert abs(np.mean(changed) - 0.45) < 0.05
    redrawn = np.asarray(noisy[train].targets)[np.asarray(changed)]
    assert np.bincount(redrawn, minlength=10).min() > 30
    np.testing.assert_array_equal(noisy[train].inputs, clean[train].inputs)
    np.testing.assert_array_equal(noisy[valid].targets, clean[valid].targets)
    assert noisy.classes == clean.classes and noisy.scale == clean.scale


def test_label_noise_reaches_held_out_labels_on_request():
    clean, splits = tasks.wine(), (tasks.Split.TRAIN, tasks.Split.INNER_VALID)
    noisy = tasks.with_label_noise(clean, 1.0, splits=splits)
    differs = lambda split: bool(np.any(noisy[split].targets != clean[split].targets))
    assert [s for s in tasks.Split if differs(s)] == list(splits)
    by_name = tasks.with_label_noise(clean, 1.0, splits=["train", "inner_valid"])
    assert eqx.tree_equal(by_name, noisy)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda t: tasks.Reparametrised(t, 0.0, key=jr.key(0)), "0 < minimum"),
        (lambda t: tasks.Reparametrised(t, 2.0, 1.0, key=jr.key(0)), "minimum <= maximum"),
        (lambda t: tasks.ESGradient(t, sigma=0.0), "positive"),
        (lambda t: tasks.ESGradient(t, pairs=0), "at least 1"),
        (lambda t: tasks.LowPrecision(t, jnp.int32), "floating-point"),
        (lambda t: tasks.with_label_noise(t.dataset, 1.5), "between 0 and 1"),
    ],
)
def test_invalid_settings_are_named(wine, make, message):
    with pytest.raises(ValueError, match=message):
        make(wine)
