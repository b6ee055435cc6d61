"""Fingerprints: equal where the computation is, in every process, and only there."""

import dataclasses
import functools as ft
import importlib.util
import os
import pathlib
import subprocess
import sys
import threading
import types

import equinox as eqx
import jax
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar import tasks as T
from equistar._evaluation._fingerprint import fingerprint


SGD = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
DATA = T.dataset_from_arrays(np.ones((20, 5)), np.arange(20) % 3)
KEY = jr.key(0)


class Own(T.AbstractTask):
    curve: object = eqx.field(static=True)
    loss_bounds: tuple[float, float] = eqx.field(default=(0.0, 10.0), static=True)

    def init(self, *, key):
        return jnp.ones(2)

    def loss(self, params, *, key, split=T.Split.TRAIN):
        return self.curve(jnp.sum(params**2))  # pyright: ignore


def _class(factor):
    class Made(eqx.Module):
        def __call__(self, x):
            return factor * x

    return Made()


def _counting(start):
    def count(n):
        return start if n == 0 else count(n - 1)

    return count


class _Slotted:
    __slots__ = ("function",)

    def __init__(self, function):
        self.function = function

    def call(self, x):
        return self.function(x)


def _reading(value):
    return eval("lambda x: scale * x", {"scale": value, "__name__": "mine"})


def _default(k):
    return lambda x, k=k: k * x


def _keyword(k):
    def f(x, *, k=k):
        return k * x

    return f


def _mlp(activation):
    return T.Classification(DATA, T.MLP((4,), activation))


def _with_rate(k):
    return eqs.OptaxOptimizer(lambda lr: optax.sgd(lr * k), lr=0.01)


def _decorated(k):
    @ft.wraps(jnp.sin)
    def f(x):
        return k * jnp.sin(x)

    return f


def _renamed(value):
    function = _reading(value)
    function.__module__, function.__qualname__ = "jax.numpy", "sin"
    return function


def _data_class(k):
    return dataclasses.make_dataclass("Made", [], namespace={"f": lambda self: k})()


def _cached_property(k):
    class Made:
        @ft.cached_property
        def f(self):
            return k

    return Made()


def _custom(k):
    @jax.custom_jvp
    def f(x):
        return k * x

    f.defjvps(lambda t, y, x: k * t)
    return f


# A maker, and two arguments that it must tell apart.
MAKERS = {
    "schedule": (lambda x: eqs.Scaled(SGD, optax.constant_schedule(x)), 1.0, 50.0),
    "lambda": (_mlp, lambda x: x, lambda x: 5 * jnp.cos(x)),
    "library": (_mlp, jnn.relu, jnn.gelu),
    "own task": (lambda f: Own(curve=f), lambda x: x, lambda x: 2 * x),
    "factory": (_with_rate, 1.0, 10.0),
    "array": (lambda x: lambda y: x * y, jnp.ones(2), jnp.zeros(2)),
    "shape": (lambda x: x, jnp.ones((2, 3)), jnp.ones((3, 2))),
    "type": (lambda x: lambda y: x * y, 1, 1.0),
    "key": (lambda seed: jr.key(seed), 0, 1),
    "partial": (lambda k: ft.partial(jnp.multiply, k), 1.0, 2.0),
    "default": (_default, 1.0, 2.0),
    "keyword": (_keyword, 1.0, 2.0),
    "recursion": (_counting, 1.0, 2.0),
    "nested": (lambda k: lambda: lambda x: k * x, 1.0, 2.0),
    "global": (_reading, 1.0, 2.0),
    "method": (lambda f: _Slotted(f).call, jnp.sin, jnp.cos),
    "jitted": (lambda k: jax.jit(lambda x: k * x), 1.0, 2.0),
    "filter_jitted": (lambda k: eqx.filter_jit(lambda x: k * x), 1.0, 2.0),
    "vmapped": (lambda k: jax.vmap(lambda x: k * x), 1.0, 2.0),
    "memoised": (lambda k: ft.lru_cache(lambda x: k * x), 1.0, 2.0),
    "decorated": (_decorated, 1.0, 2.0),
    "renamed": (_renamed, 1.0, 2.0),
    "data class": (_data_class, 1.0, 2.0),
    "cached property": (_cached_property, 1.0, 2.0),
    "custom": (_custom, 1.0, 2.0),
    "class": (_class, 1.0, 2.0),
    "set": (lambda x: lambda y: y in {"a", "b", x}, "c", "d"),
    "chain": (lambda k: optax.chain(optax.clip(k), optax.sgd(0.1)), 1.0, 2.0),
    "learned": (lambda k: eqs.STAR(key=jr.key(k)), 0, 1),
}


@pytest.mark.parametrize("name", MAKERS)
def test_what_computes_something_else_has_another_fingerprint(name):
    make, one, other = MAKERS[name]
    assert fingerprint(make(one)) == fingerprint(make(one)) != fingerprint(make(other))


def _all_fingerprints():
    return [fingerprint(make(x)) for make, *both in MAKERS.values() for x in both]


def test_fingerprints_are_those_of_every_process():
    code = "from tests import test_fingerprint as t; print(*t._all_fingerprints())"
    root = pathlib.Path(__file__).parents[1]
    here = _all_fingerprints()
    for seed in "0", "1":
        path = os.pathsep.join([str(root), *sys.path])
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        env["JAX_ENABLE_X64"] = "1"
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        there = done.stdout.split()
        differ = [i for i, (a, b) in enumerate(zip(here, there, strict=True)) if a != b]
        assert not differ


def test_what_cannot_be_looked_into_equals_nothing():
    numbers = (n for n in range(3))
    assert fingerprint(lambda: numbers) != fingerprint(lambda: numbers)


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, threading.local])
def test_a_lock_computes_nothing(make):
    lock = make()
    assert fingerprint(lambda: lock) == fingerprint(lambda: lock)


def test_a_stored_result_is_not_taken_for_one_of_another_function(tmp_path):
    quadratic = T.Quadratic(jnp.ones(2))
    store, sweeps = eqs.FolderStore(tmp_path / "r"), eqs.FolderStore(tmp_path / "s")
    adam = eqs.TunedAdam(rates=(0.1, 0.3))

    def means(rate, curve):
        evaluation = eqs.evaluate(
            {"sgd": eqs.Scaled(SGD, optax.constant_schedule(rate))},
            {"quadratic": quadratic, "own": Own(curve=curve)},
            steps=4,
            seeds=2,
            baselines=[adam],
            results=store,
            sweeps=sweeps,
            key=KEY,
        )
        return {(r.task, r.optimizer): r.mean.sum() for r in evaluation.results.runs}

    one, same, other = (means(*x) for x in ((1.0, _square), (1.0, _square), (5.0, _flat)))
    assert one == same
    adam_of = lambda task: (task, adam.name)
    assert one.pop(adam_of("quadratic")) == other.pop(adam_of("quadratic"))
    assert all(one[name] != other[name] for name in one)
    # A sweep of each task, and a second one of the task whose function changed.
    assert len(list(store.entries())) == 1 + 4 and len(list(sweeps.entries())) == 3


def _square(x):
    return x


def _flat(x):
    return 0.1 * x


def test_values_that_were_set_on_functions_and_modules_are_seen():
    module = types.ModuleType("my_settings")
    module.scale = 1.0  # pyright: ignore

    def square(x):
        return square.factor * x**2  # pyright: ignore

    def through_a_module(x):
        return module.scale * x**2  # pyright: ignore

    square.factor = 1.0  # pyright: ignore
    before = fingerprint(square), fingerprint(through_a_module)
    assert before == (fingerprint(square), fingerprint(through_a_module))
    # What neither reads may be anything, a time or a cache.
    square.calls = 1  # pyright: ignore
    module.started = 12.5  # pyright: ignore
    assert before == (fingerprint(square), fingerprint(through_a_module))
    square.factor = 7.0  # pyright: ignore
    module.scale = 7.0  # pyright: ignore
    after = fingerprint(square), fingerprint(through_a_module)
    assert before[0] != after[0] and before[1] != after[1]


def _module(name, **contents):
    module = types.ModuleType(name)
    vars(module).update(contents)
    return module


@pytest.mark.parametrize(
    "of, read",
    [
        (lambda x: x, lambda module: lambda x: module.thing * x),
        (lambda x: {"a": x}, lambda module: lambda x: module.thing["a"] * x),
        (_reading, lambda module: lambda x: module.thing(x)),
        (
            lambda x: types.SimpleNamespace(factor=x),
            lambda module: lambda x: module.thing.factor * x,
        ),
        (lambda x: _module("within", thing=x), lambda module: lambda x: module.thing.thing),
    ],
    ids=["number", "dictionary", "function", "object", "module"],
)
def test_what_a_function_reads_of_a_module_is_seen(of, read):
    found = [
        fingerprint(read(_module("my_settings", thing=of(x), other=object())))
        for x in (1.0, 1.0, 3.0)
    ]
    assert found[0] == found[1] != found[2]


def test_two_modules_of_one_name_are_two():
    def both(one, other):
        return lambda x: one.thing * other.thing * x

    found = {
        fingerprint(both(_module("mine", thing=a), _module("mine", thing=b)))
        for a, b in ((1.0, 1.0), (1.0, 1.0), (1.0, 3.0), (3.0, 1.0))
    }
    assert len(found) == 3


def _on_disk(folder, source):
    path = folder / "my_data.py"
    path.write_text(source)
    specification = importlib.util.spec_from_file_location("my_data", path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


MEMORIES = {
    "dictionary": """
cache = {}
def load():
    if "a" not in cache:
        cache["a"] = 5.0
    return scale * cache["a"]
""",
    "inner dictionary": """
cache = {"inner": {}}
def load():
    cache["inner"]["a"] = 5.0
    return scale * cache["inner"]["a"]
""",
    "list": """
cache = []
def load():
    cache.append(5.0)
    return scale * cache[-1]
""",
    "read by another": """
cache = {}
def fill():
    cache.setdefault("a", 5.0)
def load():
    fill()
    return scale * cache["a"]
""",
    "variable": """
cache = None
def load():
    global cache
    cache = 5.0 if cache is None else cache
    return scale * cache
""",
    "decorator": """
def remembering(function):
    cache, lock = {}, threading.Lock()
    def call():
        with lock:
            if "a" not in cache:
                cache["a"] = function()
            return cache["a"]
    return call
@remembering
def load():
    return scale * 5.0
""",
    "default": """
def load(cache={}, *, seen=[]):
    seen.append(1)
    cache["a"] = 5.0
    return scale * cache["a"]
""",
}


@pytest.mark.parametrize("name", MEMORIES)
def test_what_a_function_keeps_for_itself_changes_nothing(tmp_path, name):
    module = _on_disk(tmp_path, "import threading\nscale = 2.0\n" + MEMORIES[name])
    load, cache = module.load, getattr(module, "cache", None)

    def of_module():
        return module.load()

    def of_both():
        return module.load(), module.cache

    functions = load, of_module, of_both
    before = [fingerprint(f) for f in functions]
    module.load()
    assert getattr(module, "cache", None) is cache or name == "variable"
    assert before == [fingerprint(f) for f in functions]
    module.scale = 3.0  # pyright: ignore
    assert all(b != fingerprint(f) for b, f in zip(before, functions, strict=True))


def test_what_a_function_only_reads_is_seen_whatever_it_fills_besides(tmp_path):
    source = """
settings = {"rate": 1.0}
def rates():
    found = {}
    found["rate"] = settings["rate"]
    return found
def renamed(settings):
    settings["rate"] = 0.0
def moved(by):
    return outer.update(by)
"""
    module = _on_disk(tmp_path, source)
    module.outer = optax.sgd(1.0)  # pyright: ignore

    def both(x):
        module.renamed({})
        return module.rates(), module.moved(x)

    found = [fingerprint(both)]
    module.settings["rate"] = 3.0
    found.append(fingerprint(both))
    module.outer = optax.sgd(3.0)  # pyright: ignore
    assert len({*found, fingerprint(both)}) == 3


_TRIED = """
def f(a, b):
    x = 0
    {}
    except ValueError:
        x = 1
    return x
"""


def test_what_lies_inside_of_a_try_is_told_apart():
    codes = []
    for lines in ("a()\n    try: b()", "try: a(); b()"):
        names = {}
        exec(_TRIED.format(lines), names)
        codes.append(names["f"])
    one, other = codes
    # Only a table tells where the exceptions are caught.
    assert one.__code__.co_code == other.__code__.co_code
    assert fingerprint(one) != fingerprint(other)
