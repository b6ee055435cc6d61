"""Every jitted entry point lowers for CPU, CUDA and TPU on any machine."""

import importlib
import pkgutil
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.export
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import optax
import pytest

import equistar as eqs
from equistar import testing
from equistar._cli._held_out import _means
from equistar._inner_training import adam_curves, training_curves
from equistar.analysis._references import run_many


PLATFORMS = ("cpu", "cuda", "tpu")


def _lowers(function, *arguments, **more):
    """Exports a function of pytrees; what is not an array stays outside."""
    dynamic, static = eqx.partition((arguments, more), eqx.is_array)
    # Keys cross as the numbers that they are made of.
    numbers = jtu.tree_map(lambda x: jr.key_data(x) if _is_key(x) else x, dynamic)

    def run(numbers):
        wrap = lambda like, x: jr.wrap_key_data(x) if _is_key(like) else x
        args, kwargs = eqx.combine(jtu.tree_map(wrap, dynamic, numbers), static)
        return eqx.filter(jtu.tree_map(_plain, function(*args, **kwargs)), eqx.is_array)

    exported = jax.export.export(jax.jit(run), platforms=PLATFORMS)(numbers)
    assert exported.platforms == PLATFORMS


def _is_key(x):
    return eqx.is_array(x) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _plain(x):
    return jr.key_data(x) if _is_key(x) else x


@pytest.fixture(scope="module")
def star():
    return eqs.STAR(key=jr.key(0))


def test_update_lowers(star):
    params = {"w": jnp.ones((3, 2), jnp.float32), "b": jnp.ones(2, jnp.bfloat16)}
    state = star.init(params)
    _lowers(lambda o, g, s, p: o.update(g, s, p), star, params, state, params)


def test_train_lowers(star):
    run = lambda t, o, key: eqs.train(t, o, steps=3, key=key).losses
    _lowers(run, eqs.tasks.digits_mlp(), star, jr.key(0))


@pytest.mark.parametrize(
    "estimator",
    [
        eqs.PES(5, 2, length=eqs.LogUniformLength(3, 9)),
        eqs.FullES(5, 2),
        eqs.NRES(5, 2),
        eqs.TruncatedES(5, 2),
        eqs.TruncatedBackprop(5, 2),
        eqs.FullBackprop(5, 2),
        eqs.PESAnalytic(5, 2, length=eqs.Curriculum({0: eqs.GrowingLength(3, 9, 5)})),
        eqs.ForwardGradient(5, 2, directions=eqs.RandomDirections(2)),
    ],
    ids=lambda e: type(e).__name__,
)
def test_estimators_lower(star, estimator):
    unroll = eqs.InnerTraining(eqs.tasks.Quadratic(jnp.ones(3)))

    def run(unroll, theta, key):
        out = eqs.meta_gradient(unroll, estimator, theta, key=key)
        return out.gradient, out.meta_loss

    _lowers(run, unroll, star, jr.key(0))


_Compiled: Any = type(eqx.filter_jit(lambda: None))


def _compiled_functions():
    """The library's functions that are compiled where nothing around them is, by name.

    Not those of experiments, which are made of these.
    """
    found = {}
    for module in pkgutil.walk_packages(eqs.__path__, "equistar."):
        if "._reproduce" not in module.name and not module.name.endswith("__main__"):
            members = vars(importlib.import_module(module.name))
            found |= {_name(f): f for f in members.values() if isinstance(f, _Compiled)}
    return found


def _name(compiled):
    function = compiled.__wrapped__
    return f"{function.__module__}.{function.__qualname__}"


@pytest.fixture(scope="module")
def lowered():
    """The names of what has been lowered in the course of a bit of everything."""
    names, do = set(), {name: getattr(_Compiled, name) for name in ("__call__", "lower")}

    def note(self, args, kwargs):
        outermost = not any(
            isinstance(x, jax.core.Tracer) for x in jtu.tree_leaves((args, kwargs))
        )
        if outermost and _name(self) not in names:
            names.add(_name(self))
            _lowers(self.__wrapped__, *args, **kwargs)

    def spy(name):
        def method(self, /, *args, **kwargs):
            note(self, args, kwargs)
            return do[name](self, *args, **kwargs)

        return method

    with pytest.MonkeyPatch.context() as patch:
        for name in do:
            patch.setattr(_Compiled, name, spy(name))
        _a_bit_of_everything()
    return names


def _a_bit_of_everything():
    key, keys = jr.key(0), jr.split(jr.key(0), 2)
    task, star = eqs.tasks.Quadratic(jnp.ones(3)), eqs.STAR(key=key)
    unroll, descent = (
        eqs.InnerTraining(task),
        eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1),
    )
    pes = eqs.PES(2, 1, length=eqs.ConstantLength(4))
    # Four small tensors of one shape are stepped as one.
    for params in ([jnp.ones(3)], [jnp.ones(3)] * 4):
        star.update(params, star.init(params), params)
    eqs.train(task, descent, steps=1, key=key)
    eqs.meta_gradient(unroll, pes, descent, key=key)
    eqs.meta_train(unroll, pes, descent, steps=1, key=key)
    baselines = [eqs.TunedAdam(rates=(0.1,))]
    eqs.evaluate(
        {"sgd": descent}, {"task": task}, baselines=baselines, steps=2, seeds=1, key=key
    )
    _means(task, descent, 2, keys)
    training_curves(task, descent, steps=2, keys=keys)
    adam_curves(task, [0.1], steps=2, keys=keys)
    eqs.analysis.meta_gradient_health(unroll, descent, [1, 2], key=key)
    eqs.analysis.invariances(descent, trials=2, key=key)
    eqs.analysis.spectrum_along_training(task, descent, [0, 1], number=1, key=key)
    run_many(unroll, pes, descent, keys, 1, 0)
    properties = [testing.StableOnQuadratics(1.0), testing.RestsAtZeroGradient()]
    testing.check(optax.sgd(0.01), properties)


@pytest.mark.parametrize("name", _compiled_functions())
def test_what_is_compiled_lowers(name, lowered):
    assert name in lowered
