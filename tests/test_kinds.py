"""Parts are checked also in a module whose annotations are strings."""

from __future__ import annotations

import inspect
import types
import warnings
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar import _kinds
from equistar._evaluation._checks import as_makers
from equistar._kinds import check_key, check_parts


class Holder(eqx.Module):
    part: eqs.AbstractMagnitude
    number: int = 3

    def __check_init__(self):
        check_parts(self)


def test_a_part_of_another_kind_is_named_though_its_annotation_is_a_string():
    untyped: Any = Holder
    assert untyped(eqs.NoMagnitudeController()).number == 3
    with pytest.raises(ValueError, match=r"`part` of Holder must be an instance of Abst"):
        untyped(4)


def test_annotations_that_only_type_checkers_know_are_not_evaluated(monkeypatch):
    asked = []

    # As in Python 3.14, which evaluates them unless a format says otherwise.
    def signature(function, *, annotation_format=None):
        if annotation_format is None:
            raise NameError("Params")
        asked.append(function.__name__)
        return inspect.signature(function)

    stand_in = types.SimpleNamespace(signature=signature, Signature=inspect.Signature)
    monkeypatch.setattr(_kinds, "inspect", stand_in)
    monkeypatch.setattr(_kinds, "_UNEVALUATED", {"annotation_format": "forward reference"})
    eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    digits = eqs.tasks.digits_mlp
    as_makers({"mine": digits, "its": digits()})
    assert asked == ["sgd", "digits_mlp", "loss"]


def test_a_class_whose_annotations_are_known_to_its_function_only_is_made():
    class Kind(eqx.Module):
        pass

    class Local(eqx.Module):
        part: Kind

        def __check_init__(self):
            check_parts(self)

    assert isinstance(Local(Kind()).part, Kind)


# Equinox takes a whole number of NumPy's for an array: it is no static field, nor is an
# argument of that kind static to `eqx.filter_jit`.
MADE = {
    "BlackboxMLP": lambda n: eqs.BlackboxMLP(8, width=n, depth=n, key=jr.key(0)),
    "AdafactorFeatures": lambda n: eqs.AdafactorFeatures(timescales=(n, 10)),
    "GradientScale": lambda n: eqs.GradientScale(n),
    "HypergradientDescent": lambda n: eqs.HypergradientDescent(0.1, 0.02, burn_in=n),
    "PES": lambda n: eqs.PES(n, n, length=eqs.ConstantLength(n)),
    "TruncatedES": lambda n: eqs.TruncatedES(n, n),
    "ForwardGradient": lambda n: eqs.ForwardGradient(n, n),
    "FullBackprop": lambda n: eqs.FullBackprop(n),
    "Segments": lambda n: eqs.Segments(n),
    "Curriculum": lambda n: eqs.Curriculum({n - n: n, n: n}),
    "InfluenceBalancing": lambda n: eqs.InfluenceBalancing(n, n),
    "LongRun": lambda n: eqs.analysis.LongRun(eqs.FullES(n), n),
    "LogUniformLength": lambda n: eqs.LogUniformLength(n, n + n),
    "MLP": lambda n: eqs.tasks.MLP([n, n]),
    "ConvNet": lambda n: eqs.tasks.ConvNet((n,), (n,), n),
    "Transformer": lambda n: eqs.tasks.Transformer(n, n, n),
    "QuadraticFamily": lambda n: eqs.tasks.QuadraticFamily((n, n + n)),
    "digits_mlp": lambda n: eqs.tasks.digits_mlp(batch_size=n),
}


@pytest.mark.parametrize("name", MADE)
def test_whole_numbers_of_numpy_are_as_those_of_python(name, as_users_call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours, expected = MADE[name](np.int64(3)), MADE[name](3)
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    assert not any(isinstance(x, np.generic) for x in jax.tree.leaves(ours))


NUMBERS = {
    "NormalisedMean": eqs.NormalisedMean,
    "StepBound": eqs.StepBound,
    "PassedEnergyDecrease": eqs.PassedEnergyDecrease,
    "GaussianLikelihood": eqs.tasks.GaussianLikelihood,
    "ESGradient": lambda x: eqs.tasks.ESGradient(eqs.tasks.Rosenbrock(), x),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("number", [jnp.asarray(0.5), np.float32(0.5), np.array(0.5)])
def test_numbers_of_numpy_and_jax_are_as_those_of_python(name, number, as_users_call):
    ours, expected = NUMBERS[name](number), NUMBERS[name](0.5)
    assert ours == expected and hash(ours) == hash(expected)


def test_a_seed_is_any_that_jax_takes(as_users_call):
    draw: Any = lambda seed: eqs.tasks.digits(seed=seed)[eqs.tasks.Split.TRAIN].inputs
    assert jnp.array_equal(draw(jnp.asarray(3)), draw(3))
    assert not jnp.array_equal(draw(-3), draw(3))
    with pytest.raises(ValueError, match="`seed` must have 64 bits at most"):
        draw(2**63)


@pytest.mark.parametrize("key", [jnp.zeros(7, jnp.uint32), jnp.zeros((2, 2), jnp.uint32)])
def test_an_array_that_is_not_as_long_as_a_raw_key_is_none(key):
    check_key(jr.PRNGKey(0))
    with pytest.raises(ValueError, match="`key` must be one PRNG key"):
        check_key(key)


def test_a_path_may_begin_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert eqs.Checkpoints("~/run").folder == tmp_path / "run"
    assert eqs.FolderStore("~nobody-of-this-name/x").path == Path("~nobody-of-this-name/x")


def test_widths_are_any_sequence():
    task = eqs.tasks.digits_mlp(range(8, 10))
    assert task.architecture == eqs.tasks.MLP((8, 9))


def test_verbs_take_whole_numbers_of_numpy(as_users_call):
    two: Any = np.int64(2)
    key = jr.key(0)
    task, sgd = (
        eqs.tasks.Quadratic(jnp.ones(2)),
        eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1),
    )
    evaluation = eqs.evaluate(
        {"sgd": sgd},
        {"q": task},
        steps=two,
        seeds=two,
        horizons=[two],
        baselines=(),
        key=key,
    )
    assert not evaluation.failures and evaluation.about["steps"] == 2
    assert len(eqs.train(task, sgd, steps=two, key=key).losses) == 2
    unroll, estimator = (
        eqs.InnerTraining(task),
        eqs.FullES(pairs=2, length=eqs.ConstantLength(4)),
    )
    out = eqs.meta_gradient(unroll, estimator, sgd, key=key, windows=two)
    assert jnp.isfinite(out.meta_loss)
    found = eqs.analysis.invariances(sgd, steps=two, trials=two)
    assert np.isfinite(found.descent_rate)
    run = eqs.analysis.LongRun(estimator, runs=two)
    comparison = eqs.analysis.compare_estimators(
        unroll, {"ES": estimator}, sgd, reference=run, steps=two + two, runs=two, key=key
    )
    assert set(comparison.reports) == {"ES"}
