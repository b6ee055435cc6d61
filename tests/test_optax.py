"""Learned optimizers in optax's calling convention."""

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest
from jax.dtypes import float0
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

import equistar as eqs
from equistar._evaluation._fingerprint import fingerprint
from equistar._meta_training._settings import plain_settings

from .helpers import randomised


class Pair(NamedTuple):
    w: jax.Array
    b: jax.Array


def _params(dtype=jnp.float64):
    rng = np.random.default_rng(0)
    return {
        "w": jnp.asarray(rng.normal(size=(4, 3)), dtype),
        "b": jnp.asarray(rng.normal(size=3), dtype),
    }


@pytest.fixture(scope="module")
def star():
    return randomised(eqs.STAR(key=jr.key(0)), jr.key(1))


@pytest.fixture(scope="module")
def sgd():
    """A learned optimizer that compiles in no time: p - 0.1 g."""
    return eqs.LearnedOptimizer(nominal=eqs.NominalTerm(eqs.GradientDirection(), scale=0.1))


def _close(a, b, rtol=1e-12):
    jtu.tree_map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol), a, b)


TREES = {
    "dict": _params(),
    "tuple": tuple(_params().values()),
    "namedtuple": Pair(*_params().values()),
    "none": {"a": _params()["b"], "nothing": None},
    "array": _params()["w"],
    "empty": {},
    "equinox": eqx.filter(eqx.nn.MLP(2, 2, 3, 1, key=jr.key(0)), eqx.is_inexact_array),
}


@pytest.mark.parametrize("tree", TREES)
def test_updates_keep_the_structure_and_dtypes_of_any_tree(star, tree):
    params = TREES[tree]
    optim = eqs.as_optax(star)
    state = jax.eval_shape(optim.init, params)
    updates, new_state = jax.eval_shape(optim.update, params, state, params)
    shape = lambda t: jtu.tree_map(lambda x: (x.shape, x.dtype), t)
    assert shape(updates) == shape(params)
    assert shape(new_state) == shape(state)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.float64])
def test_accumulators_are_float32_or_wider_and_updates_in_the_parameters_dtype(star, dtype):
    params = _params(dtype)
    state = star.init(params)
    wide = jnp.float64 if dtype == jnp.float64 else jnp.float32
    assert {x.dtype for x in jtu.tree_leaves(state.accumulators)} == {jnp.dtype(wide)}
    updates, _ = jax.eval_shape(star.update, params, state, params)
    assert {u.dtype for u in jtu.tree_leaves(updates)} == {jnp.dtype(dtype)}


def test_state_is_params_shaped(star):
    params = _params()
    state = star.init(params)
    for tree in (*state.accumulators["momentum"], *state.accumulators["second_moment"]):
        assert jtu.tree_map(jnp.shape, tree) == jtu.tree_map(jnp.shape, params)
    for factors in state.accumulators["factored"]:
        # The shape (4, 3) less the largest axis, and less the second largest.
        assert factors.row["w"].shape == (3,)
        assert factors.column["w"].shape == (4,)
        assert factors.row["b"].shape == (3,)
        assert factors.column["b"].size == 0


def test_optax_tree_tools_map_the_state(star):
    optim, params = eqs.as_optax(star), _params()
    state = optim.init(params)
    doubled: Any = optax.tree_map_params(optim, lambda x: 2 * x + 1, state)
    assert jtu.tree_structure(doubled) == jtu.tree_structure(state)
    assert all(jnp.all(x == 1) for x in jtu.tree_leaves(doubled.inner.accumulators))
    assert doubled.count == 0


def test_no_loss_is_needed_and_extra_arguments_are_ignored(sgd):
    params = _params()
    optim = eqs.as_optax(sgd)
    plain, _ = optim.update(params, optim.init(params), params)
    extra, _ = optim.update(params, optim.init(params), params, value=1.0, grad=None)
    _close(plain, extra)


def test_learning_rate_and_weight_decay_are_numbers_or_schedules(sgd):
    params = {"w": jnp.array([1.0, -2.0])}
    grads = {"w": jnp.array([0.5, 0.5])}
    rate, decay = optax.linear_schedule(1.0, 3.0, 2), optax.linear_schedule(0.1, 0.3, 2)
    optim = eqs.as_optax(sgd, rate, decay)
    state = optim.init(params)
    for eta, lam in [(1.0, 0.1), (2.0, 0.2), (3.0, 0.3)]:
        updates: Any
        updates, state = optim.update(grads, state, params)
        expected = eta * (-0.1 * grads["w"] - lam * params["w"])
        np.testing.assert_allclose(updates["w"], expected, rtol=1e-6)
    fixed: Any
    fixed, _ = eqs.as_optax(sgd, 3.0, 0.3).update(grads, optim.init(params), params)
    np.testing.assert_allclose(fixed["w"], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["learning_rate", "weight_decay"])
@pytest.mark.parametrize("value", [-1, -1e-3, np.float32(-1), float("nan"), float("inf")])
def test_numbers_that_make_no_sense_are_refused_and_unknown_ones_are_not(sgd, name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be finite and at least 0"):
        eqs.as_optax(sgd, **{name: value})
    eqs.as_optax(sgd, **{name: lambda count: value})
    init = lambda x: eqs.as_optax(sgd, **{name: x}).init(jnp.ones(2))
    jax.eval_shape(init, jnp.asarray(value, jnp.float64))


def _descends(optim, params):
    """Five steps on |p|^2 / 2, under jit."""
    loss = lambda p: 0.5 * sum(jnp.sum(x * x) for x in jtu.tree_leaves(p))

    @jax.jit
    def step(p, state):
        value, grads = jax.value_and_grad(loss)(p)
        updates, state = optim.update(grads, state, p, value=value)
        return optax.apply_updates(p, updates), state

    state, before = optim.init(params), loss(params)
    for _ in range(5):
        params, state = step(params, state)
    return bool(loss(params) < before)


COMPANIONS = {
    "chain": lambda o: optax.chain(optax.clip_by_global_norm(1.0), o),
    "schedule": lambda o: optax.chain(o, optax.scale_by_schedule(lambda t: 1 / (1 + t))),
    "multi_transform": lambda o: optax.partition(
        {"learned": o, "adam": optax.adam(1e-3)}, {"w": "learned", "b": "adam"}
    ),
    "multi_steps": lambda o: optax.MultiSteps(o, every_k_schedule=2),
    "masked": lambda o: optax.masked(o, {"w": True, "b": False}),
    "apply_if_finite": lambda o: optax.apply_if_finite(o, max_consecutive_errors=3),
}


@pytest.mark.parametrize("name", COMPANIONS)
def test_works_inside_optax(sgd, name):
    params = _params(jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        optim = COMPANIONS[name](eqs.as_optax(sgd))
        if name == "masked":
            optim = optax.chain(
                optim, optax.masked(optax.set_to_zero(), {"w": False, "b": True})
            )
        assert _descends(optax.with_extra_args_support(optim), params)


def test_apply_if_finite_rejects_a_nan_gradient_and_keeps_the_state(star):
    params = _params(jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        optim = optax.apply_if_finite(eqs.as_optax(star), 3)
        state = optim.init(params)
        grads = jtu.tree_map(lambda p: p.at[0].set(jnp.nan), params)
        updates, state = jax.jit(optim.update)(grads, state, params)
    assert all(jnp.all(u == 0) for u in jtu.tree_leaves(updates))
    assert all(jnp.all(jnp.isfinite(x)) for x in jtu.tree_leaves(state.inner_state))


def test_a_nan_in_one_leaf_reaches_no_other(star):
    params = _params()
    grads = params | {"b": jnp.full(3, jnp.nan)}
    updates, _ = jax.jit(lambda g, p: star.update(g, star.init(p), p))(grads, params)
    assert jnp.all(jnp.isnan(updates["b"])) and jnp.all(jnp.isfinite(updates["w"]))


def test_jit_scan_and_vmap_agree_with_a_loop(star):
    batch = jtu.tree_map(lambda p: jnp.stack([p, 2 * p, -p]), _params())
    traces = []

    @jax.jit
    def run(params):
        traces.append(1)

        def body(carry, _):
            p, state = carry
            updates, state = star.update(p, state, p)
            return (optax.apply_updates(p, updates), state), None

        return jax.lax.scan(body, (params, star.init(params)), None, length=3)[0][0]

    together = jax.jit(jax.vmap(run))(batch)
    for i in range(3):
        alone = run(jtu.tree_map(lambda x, i=i: x[i], batch))
        _close(jtu.tree_map(lambda x, i=i: x[i], together), alone, 1e-10)
    assert len(traces) == 1


@pytest.mark.parametrize("wrap", [lambda o: o, eqs.as_optax], ids=["own", "optax"])
def test_the_state_of_another_optimizer_is_refused(star, wrap, as_users_call):
    params = {"w": jnp.ones(3)}
    other = optax.adam(1e-3).init(params)
    with pytest.raises(ValueError, match=r"another optimizer: call `init\(params\)`"):
        wrap(star).update(params, other, params)


@pytest.mark.parametrize("shape", [(4,), (1,)], ids=["would fail", "would broadcast"])
@pytest.mark.parametrize("wrap", [lambda o: o, lambda o: eqs.Stacked(o, 1)])
def test_a_state_of_other_shapes_is_refused(wrap, shape):
    momentum = eqs.NominalTerm(eqs.MomentumDirection())
    optimizer, params = wrap(eqs.LearnedOptimizer(nominal=momentum)), jnp.ones((2, 3))
    state = optimizer.init(jnp.ones((2, *shape)))
    with pytest.raises(ValueError, match=r"other parameters.*'momentum'.*\(2, 3\)"):
        optimizer.update(params, state, params)


def test_a_fresh_state_can_be_donated(star):
    params = {"v": jnp.ones(3), "s": jnp.ones(()), "m": jnp.ones((2, 2))}
    arrays = [
        x.unsafe_buffer_pointer() for x in jtu.tree_leaves(star.init(params)) if x.size
    ]
    assert len(arrays) == len(set(arrays))
    leaves = jtu.tree_leaves(star.init(params))
    assert len({id(x) for x in leaves}) == len(leaves)


def test_vmap_over_the_optimizer_is_a_batch_of_optimizers():
    keys = jr.split(jr.key(0), 3)
    stars = jax.vmap(lambda k: randomised(eqs.STAR(key=k), k))(keys)
    params = {"b": jnp.array([1.0, 2.0, -1.0])}

    @jax.jit
    @jax.vmap
    def step(optimizer):
        return optimizer.update(params, optimizer.init(params), params)[0]

    together = step(stars)
    for i in range(3):
        one = jtu.tree_map(lambda x, i=i: x[i : i + 1], stars)
        _close(jtu.tree_map(lambda x, i=i: x[i], together), {"b": step(one)["b"][0]}, 1e-10)


def test_state_is_sharded_as_its_parameters(star):
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("x", "y"))
    shard = lambda *spec: NamedSharding(mesh, P(*spec))
    params = jax.device_put(_params(), {"w": shard("x", "y"), "b": shard("y")})
    state = star.init(params)
    assert state.accumulators["momentum"][0]["w"].sharding == shard("x", "y")
    # The row factor of (4, 3) lacks axis 0, the column factor axis 1.
    assert state.accumulators["factored"][0].row["w"].sharding == shard("y")
    assert state.accumulators["factored"][0].column["w"].sharding == shard("x")


def test_stacked_layers_are_separate_tensors(star):
    rng = np.random.default_rng(0)
    layers = [jnp.asarray(rng.normal(size=(4, 3))) for _ in range(2)]
    params = {"blocks": {"w": jnp.stack(layers)}, "out": layers[0][0]}
    stacked = eqs.Stacked(star, {"blocks": 1, "out": 0})

    @jax.jit
    def run(params):
        return stacked.update(params, stacked.init(params), params)[0]

    updates = run(params)
    alone = jax.jit(lambda p: star.update(p, star.init(p), p)[0])
    for i, layer in enumerate(layers):
        np.testing.assert_allclose(updates["blocks"]["w"][i], alone(layer), rtol=1e-10)
    np.testing.assert_allclose(updates["out"], alone(params["out"]), rtol=1e-10)


def test_wrong_stacked_axes_are_named(sgd):
    with pytest.raises(ValueError, match="stacked_axes"):
        eqs.Stacked(sgd, {"w": 1}).init(_params())
    with pytest.raises(ValueError, match=r"\['b'\].*\(3,\)"):
        eqs.Stacked(sgd, 2).init(_params())
    with pytest.raises(ValueError, match="integers"):
        eqs.Stacked(sgd, {"w": -1, "b": 0})


def test_stacked_params_are_checked_before_their_axes(sgd, as_users_call):
    stacked = eqs.Stacked(sgd, {"w": 1, "b": 0})
    state = stacked.init(_params())
    with pytest.raises(ValueError, match="with `params`"):
        stacked.update(_params(), state, None)
    with pytest.raises(ValueError, match=r"params\['b'\] is of type float"):
        stacked.init(_params() | {"b": 1.0})


@pytest.mark.parametrize("optimizer", [optax.adam(1e-3), "star"])
def test_only_learned_optimizers_know_of_stacked_axes(optimizer, as_users_call):
    with pytest.raises(ValueError, match="`Stacked` takes a learned optimizer"):
        eqs.Stacked(optimizer, 1)


@pytest.mark.parametrize("leaf", [jnp.arange(3), jnp.array([True]), 1.0, "name"])
def test_leaves_that_are_no_float_arrays_are_named(sgd, leaf):
    with pytest.raises(ValueError, match=r"\['odd'\].*eqx\.filter"):
        sgd.init({"odd": leaf})


def test_complex_parameters_are_told_of_their_parts(sgd):
    params = {"odd": jnp.ones(2, complex)}
    with pytest.raises(ValueError, match=r"\['odd'\].*split_real_and_imaginary"):
        sgd.init(params)
    split = optax.contrib.split_real_and_imaginary(eqs.as_optax(sgd))
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = split.update(params, split.init(params), params)
    assert jnp.iscomplexobj(jtu.tree_leaves(updates)[0])


@pytest.mark.parametrize(
    "grad", [np.ones(3, bool), jnp.ones(3, int), 1j * np.ones(3), np.zeros(3, float0), 0.1]
)
def test_gradients_that_are_no_float_arrays_are_named(sgd, grad):
    params = {"w": jnp.ones(3)}
    what = "(an array of|of type) [a-zN]"
    with pytest.raises(ValueError, match=rf"Gradients must be .* grads\['w'\] is {what}"):
        sgd.update({"w": grad}, sgd.init(params), params)


@pytest.mark.parametrize("count", [None, jnp.zeros(3, int), jnp.ones(())])
@pytest.mark.parametrize("wrap", [lambda o: o, eqs.as_optax], ids=["own", "optax"])
def test_a_state_whose_count_is_no_integer_is_refused(sgd, wrap, count):
    params, optimizer = jnp.ones(3), wrap(sgd)
    state = optimizer.init(params)
    object.__setattr__(state, "count", count)
    with pytest.raises(ValueError, match=r"one integer: call `init\(params\)`"):
        optimizer.update(params, state, params)


def test_a_state_of_integers_is_refused(star):
    params = jnp.ones(3)
    state = jtu.tree_map(lambda x: x.astype(jnp.int32), star.init(params))
    with pytest.raises(ValueError, match=r"floating-point arrays: call `init\(params\)`"):
        star.update(params, state, params)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_state_of_fewer_bits_than_it_began_with_is_refused(star, dtype):
    params = jnp.ones(3, dtype)
    cast = lambda dtype: jtu.tree_map(
        lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, star.init(params)
    )
    with pytest.raises(ValueError, match=f"in float32: .* is in {jnp.dtype(dtype).name}, "):
        star.update(params, cast(dtype), params)
    # What was kept with more bits goes on with them.
    with jax.numpy_dtype_promotion("standard"):
        after = star.update(params, cast(jnp.float64), params)[1].accumulators
    assert after["momentum"][0].dtype == jnp.float64


def test_a_state_of_more_bits_than_bfloat16_momenta_have_is_refused(star):
    bank = {**star.accumulators, "momentum": eqs.InBFloat16(eqs.Momentum())}
    narrow = eqx.tree_at(lambda o: o.accumulators, star, bank)
    params = jnp.ones(3)
    with pytest.raises(ValueError, match=r"in bfloat16: .* is in float.* Cast each leaf"):
        narrow.update(params, star.init(params), params)


@pytest.mark.parametrize(
    "part",
    [{"direction": eqs.AdamDirection}, {"gain": eqs.NoGain}, {"network": eqs.NoNetwork}],
)
def test_a_class_in_place_of_a_part_is_named(as_users_call, part: Any):
    make = eqs.NominalTerm if "direction" in part else eqs.LearnedOptimizer
    with pytest.raises(ValueError, match=r"is a class and not an instance: pass `\w+\(\)`"):
        make(**part)


# As a caller without a type checker has it.
untyped: Any = eqs
PLAIN = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(eqs.GradientDirection()))


class _Raw(eqs.AbstractDirection):
    def __call__(self, tensor):
        return tensor.grad


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: untyped.STAR(direction=lambda t: t.grad, key=jr.key(0)),
            r"`direction` of NominalTerm must be .*AdamDirection.*got <function",
        ),
        (
            lambda: untyped.STAR(aggregation=untyped.PerTensor, key=jr.key(0)),
            r"`aggregation` of MagnitudeController is a class .* `PerTensor\(\)`",
        ),
        (
            lambda: untyped.LearnedOptimizer(nominal=_Raw()),
            r"`nominal` of LearnedOptimizer must be .*NominalTerm.*got _Raw\(\)",
        ),
        (lambda: untyped.Scaled(untyped.STAR, 0.1), r"`optimizer` is a class"),
        (lambda: untyped.Momentum(0.9), r"say \(0\.9, 0\.99\); got 0\.9"),
        (lambda: untyped.WeightDecay("a"), r"A scale must be one number.*got 'a'"),
        *(
            (lambda make=make: make(key=0), "`key` must be one PRNG key")
            for make in (
                untyped.STAR,
                untyped.Blackbox,
                untyped.HyperparamController,
                untyped.AdaptiveSTAR,
                untyped.BlackboxMLP,
            )
        ),
        (lambda: untyped.Scaled("star", 0.1), r"`optimizer` must be .*OptaxOptimizer"),
        (
            lambda: untyped.Safeguarded(PLAIN, PLAIN, untyped.StepBound),
            r"`criterion` of Safeguarded is a class",
        ),
        (
            lambda: untyped.Safeguarded(PLAIN, optax.sgd(0.1), untyped.StepBound(2.0)),
            r"`fallback` of Safeguarded must be .*OptaxOptimizer",
        ),
        (
            lambda: untyped.LearnedOptimizer(features=lambda tensor: tensor.grad),
            r"`features` of LearnedOptimizer must be .*AdafactorFeatures",
        ),
        (
            lambda: untyped.LearnedOptimizer(
                nominal=untyped.NominalTerm(untyped.MomentumDirection()),
                accumulators={"momentum": 0.9},
            ),
            r"accumulator 'momentum' must be .*Momentum.*got 0\.9",
        ),
    ],
)
def test_what_is_no_part_is_named(as_users_call, make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_init_and_update_are_compiled_as_they_are(star):
    optim, params = eqs.as_optax(star), {"w": jnp.ones((3, 2))}
    state = jax.jit(optim.init)(params)
    _close(state, optim.init(params), 0)
    compiled, _ = jax.jit(optim.update)(params, state, params)
    _close(compiled, optim.update(params, state, params)[0], 1e-6)
    assert hash(optim) == hash(optim)


def test_jit_of_a_method_whose_object_has_no_hash_says_what_to_use(star, sgd):
    task = eqs.tasks.Quadratic(jnp.array([3.0, 0.1]))
    cases = {
        "filter_jit.optimizer.update.*as_optax": (star.update, sgd.init),
        "filter_jit.task.loss": (task.loss,),
        "filter_jit.unroll.step": (eqs.InnerTraining(task).step,),
    }
    for message, methods in cases.items():
        for method in methods:
            with pytest.raises(TypeError, match=f"has no hash.*{message}"):
                jax.jit(method)(jnp.ones(3))


def test_trees_that_do_not_fit_are_named(sgd, star):
    params = _params()
    state = sgd.init(params)
    with pytest.raises(ValueError, match="tree structure"):
        sgd.update({"w": params["w"]}, state, params)
    with pytest.raises(ValueError, match=r"\['b'\] has shape"):
        sgd.update(params | {"b": jnp.ones(5)}, state, params)
    # Small tensors too, that are grouped before.
    bad = eqx.tree_at(lambda s: s.accumulators["momentum"][0]["b"], star.init(params), 0.5)
    with pytest.raises(ValueError, match=r"floating-point arrays: .* is of type float"):
        star.update(params, bad, params)
    with pytest.raises(ValueError, match="made for other parameters"):
        star.update({"x": jnp.ones(3)}, star.init(params), {"x": jnp.ones(3)})
    with pytest.raises(ValueError, match="takes an optimizer"):
        eqs.as_optax(optax.adam(1e-3))
    with pytest.raises(ValueError, match="with `params`"):
        eqs.as_optax(sgd).update(params, eqs.as_optax(sgd).init(params))


def test_optax_optimizer_is_optax():
    params, grads = _params(jnp.float32), jtu.tree_map(jnp.sin, _params(jnp.float32))
    ours = eqs.OptaxOptimizer(optax.adam, learning_rate=1e-2, b1=0.8)
    theirs = optax.adam(1e-2, b1=0.8)
    with jax.numpy_dtype_promotion("standard"):
        expected, _ = theirs.update(grads, theirs.init(params), params)
    updates, _ = ours.update(grads, ours.init(params), params, value=1.0)
    _close(updates, expected, 1e-5)


def test_optax_hyperparameters_stay_valid_under_any_perturbation():
    adam = eqs.OptaxOptimizer(optax.adam, learning_rate=1e-3, b1=0.9, eps=0.0)
    assert eqs.count_learned(adam) == 2
    for shift in (-5.0, 5.0):
        moved = jtu.tree_map(
            lambda x, shift=shift: x + shift if eqx.is_inexact_array(x) else x, adam
        )
        assert moved.hyperparameters["learning_rate"]() > 0
        assert 0 < moved.hyperparameters["b1"]() < 1
    np.testing.assert_allclose(adam.hyperparameters["learning_rate"](), 1e-3, rtol=1e-6)
    np.testing.assert_allclose(adam.hyperparameters["b1"](), 0.9, rtol=1e-6)


def _rates_by_kind(learning_rate, rates):
    return optax.scale(-learning_rate * jnp.asarray(rates[1], learning_rate.dtype))


@pytest.mark.parametrize(
    "rates", [jnp.arange(3), np.arange(3), eqs.Fixed(jnp.array([0.0, 1.0]))]
)
def test_arrays_that_stay_fixed_are_compared_by_what_they_hold(rates, tmp_path):
    one, same = (
        eqs.OptaxOptimizer(_rates_by_kind, learning_rate=0.1, rates=rates) for _ in range(2)
    )
    other = eqs.OptaxOptimizer(_rates_by_kind, learning_rate=0.1, rates=jnp.arange(4))
    assert eqx.tree_equal(one, same) and not eqx.tree_equal(one, other)
    assert eqs.count_learned(one) == 1
    update = eqx.filter_jit(
        lambda o: o.update(jnp.ones(2), o.init(jnp.ones(2)), jnp.ones(2))
    )
    for optimizer in (one, same):
        np.testing.assert_allclose(update(optimizer)[0], -0.1, rtol=1e-6)
    settings = lambda o: plain_settings({"optimizer": o})
    assert settings(one) == settings(same) != settings(other)
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
    chosen = eqs.OptaxOptimizer(optax.scale, step_size=eqs.Fixed(jnp.asarray(-0.5)))
    eqs.save(tmp_path / "fixed.npz", chosen)
    again: Any = eqs.load(tmp_path / "fixed.npz")
    assert eqx.tree_equal(again, chosen)
    assert again.hyperparameters["step_size"]() == -0.5


def test_an_array_that_stays_fixed_is_a_copy():
    rates = np.arange(3)
    fixed = eqs.Fixed(rates)
    rates[0] = 7
    assert fixed()[0] == 0 and fixed == eqs.Fixed(np.arange(3))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_])
def test_an_array_that_stays_fixed_is_the_same_of_numpy_and_of_jax(dtype):
    ours, theirs = (eqs.Fixed(xp.ones(3, dtype)) for xp in (jnp, np))
    assert ours == theirs and hash(ours) == hash(theirs) and eqx.tree_equal(ours, theirs)
    for other in (jnp.ones((3, 1), dtype), jnp.zeros(3, dtype), jnp.ones(3, jnp.uint32)):
        assert theirs != eqs.Fixed(other)


@pytest.mark.parametrize(
    "number", [np.float32(1e-6), np.bool_(True), np.int64(3), np.float64(0), np.float16(1)]
)
def test_a_number_of_numpy_stays_fixed_as_one_of_python(number, tmp_path):
    with warnings.catch_warnings():
        # Equinox warns of NumPy's numbers in static fields.
        warnings.simplefilter("error")
        fixed = eqs.Fixed(number)
        adam = eqs.OptaxOptimizer(
            optax.adam, learning_rate=fixed, eps_root=np.float32(0), nesterov=np.bool_(True)
        )
    assert type(fixed()) is type(number.item()) and fixed() == number.item()
    assert eqs.count_learned(adam) == 0
    eqs.save(tmp_path / "adam.npz", adam)
    assert eqx.tree_equal(eqs.load(tmp_path / "adam.npz"), adam)


def test_a_positive_number_is_finite():
    with pytest.raises(ValueError, match="must be positive and finite to be meta-learned"):
        eqs.Positive(float("inf"))


def test_traced_arrays_cannot_stay_fixed():
    make = lambda n: eqs.OptaxOptimizer(_rates_by_kind, learning_rate=0.1, rates=n)
    with pytest.raises(ValueError, match="traced array: wrap it outside of jit"):
        eqx.filter_vmap(make)(jnp.zeros((2, 3), jnp.int32))


@pytest.mark.parametrize(
    "state",
    [
        None,
        (optax.EmptyState(), optax.EmptyState()),
        optax.adam(1e-3).init(jnp.ones(3)),
        # It would broadcast.
        optax.adam(1e-3).init(jnp.ones(1)),
    ],
    ids=["none", "sgd's", "longer", "shorter"],
)
def test_a_state_that_does_not_fit_an_optax_optimizer_is_refused(state):
    adam = eqs.OptaxOptimizer(optax.adam, learning_rate=1e-3)
    params = jnp.ones(2)
    with pytest.raises(ValueError, match=r"another optimizer, .*call `init\(params\)`"):
        adam.update(params, state, params)


def test_updates_of_numpy_parameters_have_their_dtype():
    sgd = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    params: Any = np.ones(3, jnp.bfloat16)
    updates, _ = sgd.update(params, sgd.init(params), params)
    assert updates.dtype == jnp.bfloat16


def _masked_steps(learning_rate):
    inner = optax.masked(optax.adam(learning_rate), {"w": True, "b": False})
    return optax.MultiSteps(inner, 2).gradient_transformation()


@pytest.mark.parametrize(
    "optimizer",
    [
        eqs.OptaxOptimizer(optax.inject_hyperparams(optax.adam), learning_rate=0.1),
        eqs.OptaxOptimizer(
            optax.inject_hyperparams(optax.sgd),
            learning_rate=optax.linear_schedule(0.1, 0.0, 9),
        ),
        eqs.OptaxOptimizer(_masked_steps, learning_rate=0.1),
        eqs.OptaxOptimizer(optax.lbfgs),
        eqs.OptaxOptimizer(optax.add_noise, eta=0.1, gamma=0.5, key=0),
    ],
    ids=["injected", "schedule", "masked steps", "lbfgs", "noise"],
)
def test_every_state_of_optax_fits_at_each_step(optimizer):
    def two_steps(params):
        loss = lambda p: jnp.sum(p["w"])
        extra = {"value": loss(params), "value_fn": loss, "grad": params}
        state = optimizer.init(params)
        for _ in range(2):
            _, state = optimizer.update(params, state, params, **extra)
        return state

    jax.eval_shape(two_steps, {"w": jnp.ones(2), "b": jnp.ones(1, jnp.bfloat16)})


def test_gradients_that_do_not_fit_an_optax_optimizer_are_named():
    adam, params = eqs.OptaxOptimizer(optax.adam, learning_rate=0.1), {"w": jnp.ones(3)}
    state = adam.init(params)
    with pytest.raises(ValueError, match="with `params`"):
        eqs.as_optax(adam).update(params, eqs.as_optax(adam).init(params))
    with pytest.raises(ValueError, match="tree structure"):
        adam.update({"v": jnp.ones(3)}, state, params)
    with pytest.raises(ValueError, match=r"\['w'\] has shape"):
        adam.update({"w": jnp.ones(2)}, state, params)


@pytest.mark.parametrize(
    "factory, names, message",
    [
        (optax.sgd(0.1), (), r"`optax.adam, learning_rate=...` and not `optax.adam\("),
        (optax.sgd, ("learnin_rate",), "'learnin_rate'. It takes learning_rate, "),
        (optax.adam, (), "missing a required argument: 'learning_rate'"),
    ],
)
def test_a_factory_that_cannot_be_called_is_refused(as_users_call, factory, names, message):
    with pytest.raises(ValueError, match=message):
        untyped.OptaxOptimizer(factory, **dict.fromkeys(names, 0.1))


def test_a_factory_is_any_function():
    anything = lambda **hyperparameters: optax.sgd(**hyperparameters)
    # A `dict` does not say what it takes.
    for factory in (optax.inject_hyperparams(optax.sgd), anything, dict):
        adam = untyped.OptaxOptimizer(factory, learning_rate=0.1)
        assert eqs.count_learned(adam) == 1


@pytest.mark.parametrize("kwargs", [{"learning_rate": -1.0}, {"b1": 1.5}])
def test_invalid_hyperparameters_are_named(kwargs):
    with pytest.raises(ValueError, match=f"`{next(iter(kwargs))}` must be"):
        eqs.OptaxOptimizer(optax.adam, **kwargs)


@pytest.mark.parametrize("rate", ["a", None, 1j, True, jnp.array([1.0, 2.0])])
def test_a_learning_rate_that_is_no_number_is_refused(rate, as_users_call):
    with pytest.raises(ValueError, match="must be a number or a schedule"):
        eqs.as_optax(eqs.STAR(key=jr.key(0)), learning_rate=rate)


@pytest.mark.parametrize("value", [None, "x", jnp.ones(2)])
def test_a_schedule_that_returns_no_number_is_named(sgd, value, as_users_call):
    params = {"w": jnp.ones(2)}
    optim = eqs.as_optax(sgd, lambda count: value)
    with pytest.raises(ValueError, match="schedule must return one number"):
        optim.update(params, optim.init(params), params)


def test_a_schedule_of_optax_works_under_strict_promotion(sgd):
    params = {"w": jnp.ones(2)}
    optim = eqs.as_optax(sgd, optax.cosine_decay_schedule(1.0, 10))
    updates: Any
    updates, _ = optim.update(params, optim.init(params), params)
    np.testing.assert_allclose(updates["w"], -0.1, rtol=1e-6)


SAFEGUARDED = eqs.Safeguarded(
    eqs.STAR(key=jr.key(0)),
    eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1),
    eqs.StepBound(2.0),
)


@pytest.mark.parametrize(
    "optimizer",
    [eqs.STAR(key=jr.key(0)), eqs.AdaptiveSTAR(key=jr.key(0)), SAFEGUARDED],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_a_network_for_each_device_trains_in_a_loop_inside_of_shard_map(optimizer):
    optim = eqs.as_optax(optimizer)
    mesh = Mesh(np.array(jax.devices()[:1]), ("seed",))

    def train(params):
        def body(carry, _):
            p, state = carry
            updates, state = optim.update(p, state, p)
            return (optax.apply_updates(p, updates), state), None

        return jax.lax.scan(body, (params, optim.init(params)), length=2)[0][0]

    params = {"w": jnp.ones((4, 3)), "b": jnp.ones(3)}
    spec: Any = {"in_specs": P("seed"), "out_specs": P("seed")}
    each = jax.jit(jax.shard_map(train, mesh=mesh, **spec))(params)
    _close(each, jax.jit(train)(params))
