"""Means over a tensor that parts ask for, and that are taken in one pass."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import equistar as eqs


class _Agreeing(eqs.AbstractDirection):
    """The gradient, times a mean of the name `agreement`."""

    reads = ("momentum",)
    wanted: Callable = eqx.field(static=True, default=lambda g, m: {"agreement": g * m[0]})

    def averaged(self, tensor):
        return self.wanted(tensor.grad, tensor.momentum)

    def __call__(self, tensor):
        return tensor.grad * self.means(tensor)["agreement"]


class _Gain(eqs.AbstractGain):
    """A mean of that name as a gain."""

    reads = ("momentum",)

    def averaged(self, tensor):
        return {"agreement": tensor.momentum[2] ** 2}

    def __call__(self, tensor):
        return self.means(tensor)["agreement"]


class _Statistic(eqs.AbstractFeatures):
    """The gradient and its cube per element, and one mean; `known` of the mean squares."""

    known: bool = eqx.field(static=True, default=False)

    def averaged(self, tensor):
        squares = {"g6": tensor.grad**6} if self.known else {}
        return {"positive": tensor.grad > 0, **squares}

    def __call__(self, tensor):
        means = self.means(tensor)
        known = {"element": (None, means["g6"])} if self.known else {}
        cube = tensor.grad**3
        return eqs.Inputs(
            (tensor.grad, cube), tensor=(means["positive"],), mean_squares=known
        )


def _update(optimizer, grads, params):
    updates, state = optimizer.update(grads, optimizer.init(params), params)
    return updates, state.accumulators["momentum"]


def test_a_part_has_the_means_that_it_asks_for():
    key, nominal = jr.key(0), eqs.NominalTerm(_Agreeing(), scale=0.1)
    params, grads = jr.normal(key, (2, 5, 3))
    star = eqs.STAR(key=key)
    # Alone, and beside a network, whose own direction is zero as long as it is fresh.
    beside = eqs.LearnedOptimizer(
        features=star.features,
        network=star.network,
        blackbox=star.blackbox,
        nominal=nominal,
    )
    for optimizer in (eqs.LearnedOptimizer(nominal=nominal), beside):
        updates, m = _update(optimizer, grads, params)
        expected = -0.1 * grads * jnp.mean(m[0] * grads)
        np.testing.assert_allclose(updates, expected, rtol=1e-9)


class _Agreement(eqs.AbstractAccumulator):
    """The mean product of the new gradient and of a momentum before it; one of each."""

    reads = ("momentum",)
    of: int = eqx.field(static=True)

    def init(self, param):
        return (jnp.zeros(()), jnp.zeros(()))

    def averaged(self, tensor):
        return {"agreement": tensor.grad * tensor.momentum[self.of]}

    def update(self, state, tensor):
        return (self.means(tensor)["agreement"], state[0])

    def summarise(self, state, tensor):
        return self.means(tensor)["agreement"]


class _AgreementGain(eqs.AbstractGain):
    reads = ("fast", "slow")

    def __call__(self, tensor):
        return tensor.accumulators["fast"][0] + 2 * tensor.summaries["slow"]


def test_an_accumulator_has_the_means_of_what_was_before_the_update():
    key, params = jr.key(0), jnp.ones((5, 3))
    bank = {**eqs.default_accumulators(), "fast": _Agreement(0), "slow": _Agreement(2)}
    halved = {**bank, "fast": eqs.InBFloat16(bank["fast"])}
    nominal = eqs.NominalTerm(
        eqs.GradientDirection(), eqs.NoMagnitudeController(), scale=1.0
    )
    for accumulators, rtol in ((bank, 1e-12), (halved, 0.01)):
        optimizer = eqs.LearnedOptimizer(
            nominal=nominal, gain=_AgreementGain(), accumulators=accumulators
        )
        state = optimizer.init(params)
        for k in jr.split(key, 3):
            m = state.accumulators["momentum"]
            grads = jr.normal(k, params.shape)
            fast, slow = (float(np.mean(np.asarray(grads * m[i]))) for i in (0, 2))
            updates, state = optimizer.update(grads, state, params)
            np.testing.assert_allclose(
                updates, -grads * (fast + 2 * slow), rtol=rtol, atol=rtol * abs(slow)
            )
            np.testing.assert_allclose(state.accumulators["slow"][0], slow, rtol=1e-12)


def test_one_name_is_of_each_part_its_own_mean():
    params, grads = jr.normal(jr.key(0), (2, 5, 3))
    nominal = eqs.NominalTerm(_Agreeing(), scale=1.0)
    optimizer = eqs.LearnedOptimizer(nominal=nominal, gain=_Gain())
    updates, m = _update(optimizer, grads, params)
    expected = -grads * jnp.mean(m[0] * grads) * jnp.mean(m[2] ** 2)
    np.testing.assert_allclose(updates, expected, rtol=1e-9)


@pytest.mark.parametrize("as_type", [jnp.float32, jnp.int32, bool])
def test_the_mean_of_any_kind_of_number_is_a_number_of_the_tensors_kind(as_type):
    grads = jr.normal(jr.key(0), (64, 5))
    wanted = lambda g, m: {"agreement": (g > 0).astype(as_type), "other": g}
    optimizer = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(_Agreeing(wanted), scale=1.0))
    updates, _ = _update(optimizer, grads, jnp.ones((64, 5)))
    np.testing.assert_allclose(
        updates, -grads * float(np.mean(np.asarray(grads) > 0)), rtol=1e-12
    )


@pytest.mark.parametrize("shape", [(5, 3), (7,)])
def test_joined_sets_keep_the_mean_squares_that_some_of_them_know(shape):
    params, grads = jr.normal(jr.key(0), (2, *shape))
    optimizer = eqs.LearnedOptimizer(
        features=eqs.JoinedFeatures(
            eqs.AdafactorFeatures((10,)), _Statistic(), _Statistic(known=True)
        ),
        network=eqs.BlackboxMLP(in_size=29 + 6, key=jr.key(1)),
        blackbox=eqs.BlackboxTerm(init=eqs.release_init, key=jr.key(2)),
    )
    accumulators, _ = optimizer.accumulate_tensor(
        grads, params, optimizer.init_tensor(params), jnp.array(0)
    )
    tensor = eqs.Tensor(params, grads, accumulators, jnp.array(0))
    inputs = optimizer.features(tensor)
    assert [x is None for x in inputs.mean_squares["element"][16:]] == [True] * 3 + [False]
    positive = float(np.mean(np.asarray(grads) > 0))
    np.testing.assert_allclose(inputs.tensor[1:], positive, rtol=1e-12)
    alone = dataclasses.replace(inputs, mean_squares={})
    np.testing.assert_allclose(
        optimizer.network.normalise(inputs), optimizer.network.normalise(alone), rtol=1e-12
    )
    hidden = optimizer.network(inputs, optimizer.network.normalise(alone))
    updates, _ = _update(optimizer, grads, params)
    expected = -optimizer.blackbox(tensor, hidden)
    np.testing.assert_allclose(updates, expected, rtol=1e-9, atol=1e-15)


def test_means_of_huge_gradients_are_no_nan():
    params = jnp.ones((5, 3), jnp.float32)
    optimizer = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(), gain=eqs.TensorGain())
    updates, _ = optimizer.update(1e30 * params, optimizer.init(params), params)
    assert jnp.all(updates == 0)


@pytest.mark.parametrize(
    "wanted, expected",
    [
        (lambda g, m: {}, r"mean 'agreement' and does not ask for it: .*`averaged`"),
        (
            lambda g, m: {"agreement": g[0]},
            r"^`averaged` of _Agreeing gave shape \(3,\) and dtype float64 as 'agreement'",
        ),
        (lambda g, m: {"agreement": 1.0}, "gave a float as 'agreement' for a tensor"),
        (lambda g, m: {"agreement": [g]}, "gave a list as 'agreement' for a tensor"),
        (
            lambda g, m: {"agreement": g.astype(complex)},
            "_Agreeing gave .* dtype complex128 .* must return real arrays",
        ),
        (lambda g, m: (g,), "`averaged` of _Agreeing must return a dictionary"),
        (lambda g, m: None, "`averaged` of _Agreeing must return a dictionary"),
        (lambda g, m: {1: g}, "must return a dictionary of arrays by name"),
    ],
)
@pytest.mark.usefixtures("as_users_call")
def test_what_is_no_mean_is_named(wanted, expected):
    params = jnp.ones((2, 3))
    optimizer = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(_Agreeing(wanted)))
    with pytest.raises(ValueError, match=expected):
        optimizer.update(params, optimizer.init(params), params)


class _Asking(_Statistic):
    wanted: Any = eqx.field(static=True, default=None)

    def averaged(self, tensor):
        return self.wanted


@pytest.mark.usefixtures("as_users_call")
def test_a_part_is_named_through_all_that_hold_it():
    params, joined = jnp.ones((2, 3)), eqs.JoinedFeatures(eqs.TensorStatistics(), _Asking())
    gain = eqs.TensorGain(joined, start=(0.0,) * 12)
    optimizer = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(), gain=gain)
    with pytest.raises(ValueError, match=r"^`averaged` of _Asking must return a dict"):
        optimizer.update(params, optimizer.init(params), params)


def test_means_are_a_mapping_of_which_several_are_one_vector():
    numbers = {"a": jnp.array(1.0), "b": jnp.array(2.0), "c": jnp.array(3.0)}
    tensor = eqs.Tensor(jnp.zeros(3), jnp.zeros(3), {}, jnp.array(0), means=numbers)  # pyright: ignore
    means: Any = tensor.means
    assert dict(means) == {"a": 1, "b": 2, "c": 3}
    assert "b" in means and "d" not in means
    for names, expected in (("bc", [2, 3]), ("ca", [3, 1]), ("", [])):
        np.testing.assert_array_equal(means.together(names), expected)
    with pytest.raises(ValueError, match=r"reads the mean 'd'.*Asked for are"):
        means.together("ad")
