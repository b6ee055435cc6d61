"""Small tensors of one shape, which are stepped as one stack."""

import functools as ft

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest

import equistar as eqs
from equistar._optimizers import _groups


SHAPES = [(6,)] * 5 + [(8, 12)] * 4 + [(3, 0)] * 4
OPTIMIZERS = {
    "star": eqs.STAR,
    "blackbox": ft.partial(eqs.Blackbox, width=16),
    "adaptive": eqs.AdaptiveSTAR,
    "in_bfloat16": lambda key: _in_bfloat16(eqs.STAR(key=key)),
}


def _in_bfloat16(star):
    bank = star.accumulators
    bank = {**bank, "momentum": eqs.InBFloat16(bank["momentum"])}
    return eqx.tree_at(lambda o: o.accumulators, star, bank)


def _params(shapes, dtype=jnp.float32, seed=0):
    keys = jr.split(jr.key(seed), len(shapes))
    return [jr.normal(k, s, dtype) for k, s in zip(keys, shapes, strict=True)]


def _trained(optimizer, params, grads, steps=3):
    state = optimizer.init(params)
    for _ in range(steps):
        updates, state = optimizer.update(grads, state, params)
        params = jtu.tree_map(jnp.add, params, updates)
    return params, state


def _check(theirs, ours, rtol=1e-5, atol=1e-7):
    jtu.tree_map(
        lambda x, y: np.testing.assert_allclose(
            x.astype(jnp.float32), y.astype(jnp.float32), rtol, atol
        ),
        theirs,
        ours,
    )


def _alone(optimizer, params, grads, steps=3):
    each = zip(params, grads, strict=True)
    return [_trained(optimizer, [p], [g], steps)[0][0] for p, g in each]


@pytest.fixture
def stacks(monkeypatch):
    """The numbers of tensors that are stepped as one."""
    seen, as_one = [], _groups.as_one

    def counted(step, tensors, count):
        seen.append(len(tensors))
        return as_one(step, tensors, count)

    monkeypatch.setattr("equistar._optimizers._learned.as_one", counted)
    return seen


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_small_tensors_of_one_shape_are_updated_as_each_alone(make, stacks):
    optimizer = make(key=jr.key(0))
    params, grads = _params(SHAPES), _params(SHAPES, seed=1)
    together, _ = jax.jit(ft.partial(_trained, optimizer))(params, grads)
    assert sorted(set(stacks)) == [4, 5]
    _check(together, _alone(optimizer, params, grads))


def test_so_they_are_outside_of_a_compiled_function():
    optimizer = eqs.STAR(key=jr.key(0))
    params, grads = _params(SHAPES), _params(SHAPES, seed=1)
    _check(_trained(optimizer, params, grads)[0], _alone(optimizer, params, grads))


def test_their_accumulators_are_the_same_to_the_bit():
    optimizer = eqs.STAR(key=jr.key(0))
    params, grads = _params([(6,)] * 5), _params([(6,)] * 5, seed=1)
    update = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[1].accumulators)
    ours = update(grads, params)
    alone = [update([g], [p]) for p, g in zip(params, grads, strict=True)]
    theirs = jtu.tree_map(lambda *xs: [x for (x,) in xs], *alone, is_leaf=_is_list)
    jtu.tree_map(np.testing.assert_array_equal, ours, theirs)


def _is_list(x):
    return isinstance(x, list)


def test_stacked_layers_among_them():
    optimizer = eqs.Stacked(eqs.STAR(key=jr.key(0)), 1)
    params, grads = _params([(3, 4, 5)] * 4), _params([(3, 4, 5)] * 4, seed=1)
    layers = lambda xs: [x[i] for x in xs for i in range(3)]
    alone = _alone(optimizer.optimizer, layers(params), layers(grads))
    _check(layers(_trained(optimizer, params, grads)[0]), alone)


def test_kinds_of_number_are_not_mixed(stacks):
    optimizer = eqs.STAR(key=jr.key(0))
    params = _params([(6,)] * 3) + _params([(6,)] * 3, jnp.bfloat16)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert not stacks
    assert [x.dtype for x in updates] == [x.dtype for x in params]
    four = _params([(6,)] * 4, jnp.bfloat16)
    updates, _ = optimizer.update(four, optimizer.init(four), four)
    assert {x.dtype for x in updates} == {jnp.dtype(jnp.bfloat16)}


def test_large_tensors_and_few_of_a_kind_go_alone(stacks):
    optimizer = eqs.STAR(key=jr.key(0))
    params = _params([(128, 65)] * 4 + [(7,)] * 3)
    optimizer.update(params, optimizer.init(params), params)
    assert not stacks


def test_a_tensor_that_is_not_finite_leaves_the_others_alone():
    optimizer = eqs.STAR(key=jr.key(0))
    params, grads = _params([(6,)] * 4), _params([(6,)] * 4, seed=1)
    broken = [grads[0].at[0].set(jnp.nan), *grads[1:]]
    after = _trained(optimizer, params, broken)[0]
    assert not np.isfinite(after[0]).all()
    _check(after[1:], _trained(optimizer, params, grads)[0][1:])


def test_derivatives_and_members_are_those_of_each_alone():
    params, grads = _params([(6,)] * 4), _params([(6,)] * 4, seed=1)

    def together(theta):
        return sum(jnp.sum(p**2) for p in _trained(theta, params, grads, 1)[0])

    def alone(theta):
        return sum(jnp.sum(p**2) for p in _alone(theta, params, grads, 1))

    thetas = jax.vmap(lambda k: eqs.STAR(key=k))(jr.split(jr.key(0), 2))
    slopes = lambda fn: jax.jit(jax.vmap(jax.value_and_grad(fn)))(thetas)
    _check(slopes(together), slopes(alone), 1e-4, 1e-5)


def test_one_more_of_a_kind_is_little_more_to_compile():
    optimizer = eqs.STAR(key=jr.key(0))

    def lines(n):
        params = [jax.ShapeDtypeStruct((128,), jnp.float32)] * n
        state = jax.eval_shape(optimizer.init, params)
        update = lambda g, s, p: optimizer.update(g, s, p)
        lowered = jax.jit(update).lower(params, state, params)
        return len(str(lowered.compile().as_text()).splitlines())

    # 100 for one more, and 600 for one alone.
    assert (lines(8) - lines(4)) / 4 < lines(1) / 4
