"""Means from some elements: which, what they change, and what they leave alone."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest

import equistar as eqs
from equistar import interop

from .test_export import _lowers


class MeanSquare(eqs.AbstractGain):
    """The mean square of the gradient."""

    reads: ClassVar[tuple[str, ...]] = ()

    def averaged(self, tensor):
        return {"g g": tensor.grad**2}

    def __call__(self, tensor):
        return self.means(tensor)["g g"]


@pytest.fixture(scope="module")
def star():
    return eqs.STAR(key=jr.key(0), direction_init=eqs.release_init)


def _first(optimizer, params, grads) -> Any:
    return optimizer.update(grads, optimizer.init(params), params)[0]


# The rows and the columns of the two longest axes, each cut into `steps`: where one of row
# r is looked at.
def _looked_at(row, column, shape, steps):
    r, c = (np.arange(shape[i]) for i in (row, column))
    return (c // (shape[column] // steps))[None, :] == (r % steps)[:, None]


@pytest.mark.parametrize(
    "shape, every, least, steps",
    [
        ((12, 24), 4, 1, 4),
        ((784, 128), 16, 1024, 16),
        ((1000, 128), 16, 1024, 8),
        ((64, 48), 16, 300, 8),
        ((10, 128), 16, 1, 2),
    ],
)
def test_every_row_and_column_has_its_share(shape, every, least, steps, star):
    x = np.asarray(jr.normal(jr.key(1), shape))
    sampled = eqs.SampledMeans(star, every, least).sample(jnp.asarray(x))
    rows = [x[r][where] for r, where in enumerate(_looked_at(0, 1, shape, steps))]
    np.testing.assert_array_equal(sampled, rows)
    seen = np.isin(x, sampled)
    assert set(seen.sum(1)) == {shape[1] // steps}
    assert set(seen.sum(0)) == {shape[0] // steps}


@pytest.mark.parametrize(
    "shape, least, kept, steps",
    [
        ((1001, 128), 1024, (992, 128), 16),
        ((96, 1601), 1, (96, 1600), 16),
        ((897, 993), 1, (896, 992), 16),
        ((993, 16), 992, (992, 16), 16),
        ((993, 16), 993, (992, 16), 8),
    ],
)
def test_few_of_an_odd_number_may_be_left_out(shape, least, kept, steps, star):
    x = np.asarray(jr.normal(jr.key(1), shape))
    sampled = eqs.SampledMeans(star, least=least).sample(jnp.asarray(x))
    where = _looked_at(0, 1, kept, steps)
    expected = [x[r, : kept[1]][w] for r, w in enumerate(where)]
    np.testing.assert_array_equal(sampled, expected)


def test_rows_and_columns_are_of_the_two_longest_axes(star):
    optimizer = eqs.SampledMeans(star, every=4, least=4)
    x = np.asarray(jr.normal(jr.key(1), (3, 16, 2, 8, 5)))
    where = _looked_at(1, 3, x.shape, 4)
    expected = [x[:, r][:, :, w] for r, w in enumerate(where)]
    np.testing.assert_array_equal(optimizer.sample(jnp.asarray(x)), np.stack(expected, 1))


@pytest.mark.parametrize("shape", [(), (4096,), (1, 4096), (64, 63), (16, 16), (1021, 7)])
def test_all_of_what_cannot_be_cut_is_taken(shape, star):
    x = jr.normal(jr.key(2), shape)
    assert eqs.SampledMeans(star, every=3, least=129).sample(x) is x


def test_parts_get_the_means_of_sampled_elements():
    whole = eqs.LearnedOptimizer(
        nominal=eqs.NominalTerm(
            eqs.GradientDirection(), eqs.NoMagnitudeController(), scale=0.5
        ),
        gain=MeanSquare(),
    )
    params, grads = jnp.zeros((32, 8)), jr.normal(jr.key(1), (32, 8))
    where = _looked_at(0, 1, grads.shape, 4)
    some = eqs.SampledMeans(whole, every=4, least=4)
    for optimizer, seen in ((whole, grads), (some, grads[where])):
        expected = -0.5 * np.mean(np.square(seen)) * np.asarray(grads)
        np.testing.assert_allclose(_first(optimizer, params, grads), expected, rtol=1e-12)


def test_accumulators_get_the_means_of_sampled_elements():
    descent = eqs.HypergradientDescent(threshold=0.0)
    whole = eqs.LearnedOptimizer(
        nominal=eqs.NominalTerm(eqs.GradientDirection()),
        gain=eqs.TensorGain(eqs.LogStepSize(), start=(3.0,)),
        accumulators={**eqs.default_accumulators(), "log_step_size": descent},
    )
    some = eqs.SampledMeans(whole, every=4, least=4)
    params, *grads = jr.normal(jr.key(1), (3, 32, 8))
    where = _looked_at(0, 1, params.shape, 4)
    _, state = some.update(grads[0], some.init(params), params)
    seen = jtu.tree_map(lambda x: x[where] if x.ndim else x, state.accumulators)
    tensor = eqs.Tensor(params[where], grads[1][where], seen, state.count)
    (expected,) = descent.update(seen["log_step_size"], tensor)
    _, state = some.update(grads[1], state, params)
    (found,) = state.accumulators["log_step_size"]
    assert abs(expected) > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("make", [eqs.STAR, eqs.AdaptiveSTAR, eqs.Blackbox])
def test_updates_are_the_same_where_sampled_elements_stand_for_all(make):
    optimizer = make(key=jr.key(0), direction_init=eqs.release_init)
    some = eqs.SampledMeans(optimizer, every=4, least=4)
    of_four = lambda key: jnp.tile(jr.normal(key, (16, 3)), (4, 4))
    params = {"w": of_four(jr.key(1)), "b": jr.normal(jr.key(2), (40,))}
    states = [o.init(params) for o in (optimizer, some)]
    for key in jr.split(jr.key(3), 3):
        grads = {"w": of_four(key), "b": jr.normal(key, (40,))}
        (ours, states[0]), (theirs, states[1]) = (
            o.update(grads, s, params)
            for o, s in zip((optimizer, some), states, strict=True)
        )
        compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-14)
        jtu.tree_map(compare, (ours, states[0]), (theirs, states[1]))
        assert all(jnp.any(u != 0) for u in jtu.tree_leaves(ours))


def test_other_elements_change_the_update(star):
    params, grads = jr.normal(jr.key(1), (2, 64, 12))
    some = eqs.SampledMeans(star, every=4, least=4)
    ours, theirs = _first(some, params, grads), _first(star, params, grads)
    assert not np.allclose(ours, theirs, rtol=1e-3, atol=0)


def test_derivatives_are_those_of_the_sampled_means(star):
    some = eqs.SampledMeans(star, every=4, least=4)
    params, grads, direction = jr.normal(jr.key(1), (3, 32, 8))
    loss = lambda g: jnp.sum(jnp.square(_first(some, params, g)))
    step = 1e-6
    numeric = (loss(grads + step * direction) - loss(grads - step * direction)) / (2 * step)
    slope = jnp.vdot(jax.grad(loss)(grads), direction)
    np.testing.assert_allclose(slope, numeric, rtol=1e-6)


# Elements that are left out cost nothing: XLA computes no product of theirs.
def test_the_reduction_computes_sampled_elements_only(star):
    param = jnp.zeros((512, 512), jnp.float32)

    def operations(optimizer):
        state = optimizer.init(param)
        step = jax.jit(lambda g, s, p: optimizer.update(g, s, p))
        cost: Any = step.lower(param, state, param).compile().cost_analysis()
        return cost["flops"]

    of_reduction = operations(star) - operations(eqs.SampledMeans(star, every=512, least=1))
    of_quarter = operations(star) - operations(eqs.SampledMeans(star, every=4, least=1))
    assert of_reduction > 10 * param.size
    assert 0.7 < of_quarter / of_reduction < 0.8


def test_it_lowers_for_all_platforms(star):
    params = jnp.ones((64, 8), jnp.float32)
    some = eqs.SampledMeans(star, every=4, least=4)
    _lowers(lambda o, g, s, p: o.update(g, s, p), some, params, some.init(params), params)


def test_it_is_saved_and_loaded(star, tmp_path):
    some = eqs.SampledMeans(star, every=4, least=5)
    eqs.save(tmp_path / "some.safetensors", some)
    loaded = eqs.load(tmp_path / "some.safetensors")
    assert isinstance(loaded, eqs.SampledMeans)
    assert (loaded.every, loaded.least) == (4, 5)
    params = jr.normal(jr.key(1), (64, 4))
    np.testing.assert_array_equal(
        _first(loaded, params, params), _first(some, params, params)
    )


def test_the_same_meta_parameters_decay(star):
    decays = eqs.blackbox_mask(eqs.SampledMeans(star))
    assert decays.optimizer == eqs.blackbox_mask(star)


some: Any = eqs.SampledMeans


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda o: some(eqs.Scaled(o)), "must be a learned optimizer itself, say"),
        (lambda o: some(some(o)), "SampledMeans has a `sample` of its own"),
        (lambda o: some(o, every=0), "`every` must be a whole number of"),
        (lambda o: some(o, least=0.5), "`least` must be a whole number of"),
        (
            lambda o: interop.to_learned_optimization(eqs.SampledMeans(o)),
            "means over all elements: export its `optimizer`",
        ),
    ],
)
def test_bad_arguments_are_refused(make, message, star, as_users_call):
    del as_users_call
    with pytest.raises(ValueError, match=message):
        make(star)
