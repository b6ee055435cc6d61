"""What is given where a part of another kind is wanted is named, and so is the way out."""
# pyright: reportArgumentType=false

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar import testing
from equistar.analysis import compare_estimators, LongRun, meta_gradient_health

from .helpers import LinearWalk


TASK = eqs.tasks.Quadratic(jnp.array([1.0, 0.5]))
WALK, KEY = LinearWalk(0.1), jr.key(0)


class Upside(eqs.AbstractDirection):
    def __call__(self, tensor):
        return -tensor.grad


class Scalar(eqs.AbstractUnroll):
    def init(self, theta, *, key):
        return 1

    def step(self, theta, carry, *, key):
        return carry, theta


class Comma(eqs.AbstractFeatures):
    reads = "momentum"  # pyright: ignore

    def __call__(self, tensor):
        return eqs.Inputs(element=tensor.momentum)


class Pair(eqs.AbstractFeatures):
    def __call__(self, tensor):  # pyright: ignore
        return (tensor.grad,)


def _networked(features):
    return eqs.LearnedOptimizer(
        features=features,
        network=eqs.BlackboxMLP(in_size=1, key=KEY),
        blackbox=eqs.BlackboxTerm(key=KEY),
    )


def _updated(optimizer, grads=None, params=jnp.ones(3)):
    return optimizer.update(
        params if grads is None else grads, optimizer.init(params), params
    )


def _regression():
    return eqs.tasks.regression_from_arrays(np.ones((20, 2)), np.arange(20.0))


def _classes():
    return eqs.tasks.dataset_from_arrays(np.ones((20, 2)), np.arange(20) % 2)


def _sgd(**options):
    return eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1, **options)


def _without_params():
    optim = eqs.as_optax(_sgd())
    return optim.update(jnp.ones(3), optim.init(jnp.ones(3)))


MISTAKES = {
    "a transformation for its factory": (
        lambda: eqs.OptaxOptimizer(optax.sgd(0.1)),
        r"`optax\.adam` and not `optax\.adam\(1e-3\)`",
    ),
    "a misspelt hyperparameter": (
        lambda: eqs.OptaxOptimizer(optax.sgd, learnin_rate=0.1),
        "`sgd` does not take these hyperparameters",
    ),
    "no parameters": (_without_params, "with `params`"),
    "another tree": (lambda: _updated(_sgd(), {"a": jnp.ones(3)}), "one tree structure"),
    "a task to meta_gradient": (
        lambda: eqs.meta_gradient(TASK, eqs.PES(5, 2), _sgd(), key=KEY),
        r"Quadratic is no unroll: .*InnerTraining\(task\)",
    ),
    "a task to compare": (
        lambda: compare_estimators(
            TASK, {}, _sgd(), reference=LongRun(eqs.PES(5, 2)), steps=5, key=KEY
        ),
        "Quadratic is no unroll",
    ),
    "a task to health": (
        lambda: meta_gradient_health(TASK, _sgd(), [3], key=KEY),
        "Quadratic is no unroll",
    ),
    "an unroll's own name": (
        lambda: eqs.meta_train(Scalar(), eqs.PES(5, 2), jnp.ones(()), steps=1, key=KEY),
        r"Scalar\.init must return a carry of arrays",
    ),
    "an objective's class": (
        lambda: eqs.PES(5, 2, length=20, objective=eqs.FinalLoss),
        r"`objective` of PES is a class and not a part: pass `FinalLoss\(\)`",
    ),
    "starts' class": (lambda: eqs.PES(5, 2, starts=eqs.LockStep), r"pass `LockStep\(\)`"),
    "no rematerialisation": (
        lambda: eqs.TruncatedBackprop(5, 4, 20, remat=None),
        r"`remat` of TruncatedBackprop must be .*NoRematerialisation\(\.\.\.\)",
    ),
    "half a pair": (lambda: eqs.PES(5, 1.5), "`pairs` of PES must be a whole number"),
    "half a step": (lambda: eqs.ConstantLength(2.5), "`length` of .* a whole number"),
    "a meta-loss's class": (
        lambda: eqs.InnerTraining(TASK, eqs.AfterUpdate),
        r"`meta_loss` of InnerTraining .*pass `AfterUpdate\(\)`",
    ),
    "a meta-loss's name": (
        lambda: eqs.InnerTraining(TASK, "held out"),
        r"`meta_loss` of InnerTraining must be .*got 'held out'",
    ),
    "bounds the wrong way": (
        lambda: eqs.InnerTraining(
            eqs.tasks.Quadratic(jnp.ones(1), loss_bounds=(10.0, 0.0))
        ),
        "`loss_bounds` of Quadratic must be a lower and a higher",
    ),
    "a folder for checkpoints": (
        lambda: eqs.meta_train(
            WALK, eqs.PES(5, 2), jnp.ones(()), steps=1, key=KEY, checkpoints="folder"
        ),
        r"pass `Checkpoints\('a-folder'\)`; got 'folder'",
    ),
    "a function for a direction": (
        lambda: eqs.STAR(direction=lambda t: t.grad, key=KEY),
        "`direction` of NominalTerm must be of the class AbstractDirection, say",
    ),
    "a direction for a term": (
        lambda: eqs.LearnedOptimizer(nominal=Upside()),
        r"`nominal` of LearnedOptimizer must be .*say NoNominal.* NominalTerm",
    ),
    "a function for features": (
        lambda: eqs.LearnedOptimizer(features=lambda t: eqs.Inputs()),
        "is no part: pass an instance",
    ),
    "a name for a tuple": (lambda: _networked(Comma()), r"write `reads = \('momentum',\)`"),
    "a tuple for inputs": (lambda: _updated(_networked(Pair())), "must return `Inputs`"),
    "a number for horizons": (
        lambda: meta_gradient_health(WALK, jnp.ones(()), 10, key=KEY),
        "`horizons` must be increasing",
    ),
    "a list for names": (
        lambda: compare_estimators(
            WALK,
            [eqs.PES(5, 2)],
            jnp.ones(()),
            reference=LongRun(eqs.PES(5, 2)),
            steps=5,
            key=KEY,
        ),
        r"`estimators` must be a dictionary, say \{'PES': PES\(\)\}",
    ),
    "a property's class": (
        lambda: testing.check(_sgd(), [testing.KeepsStructure]),
        r"as instances, say `\[KeepsStructure\(\)",
    ),
    "one property": (
        lambda: testing.check(_sgd(), testing.KeepsStructure()),
        "as instances",
    ),
    "a property skipped": (
        lambda: testing.optimizer_tests(_sgd(), skip=[testing.WideAccumulators()]),
        r"`skip` takes classes of properties, say `\[WideAccumulators\]`",
    ),
    "numbers for classes": (
        lambda: eqs.tasks.Classification(_regression()),
        "`dataset` of Classification must be of the class Dataset",
    ),
    "classes for numbers": (
        lambda: eqs.tasks.Regression(_classes()),
        "`regression_from_arrays`; got a Dataset",
    ),
    "names of classes": (
        lambda: eqs.tasks.dataset_from_arrays(np.ones((20, 2)), np.array(["a", "b"] * 10)),
        "return_inverse=True",
    ),
}


@pytest.mark.parametrize("call, message", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_with_the_way_out(call, message, as_users_call):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_direction_of_the_gradient_alone_need_not_say_what_it_reads():
    optimizer = eqs.LearnedOptimizer(nominal=eqs.NominalTerm(Upside(), scale=1.0))
    updates, _ = _updated(optimizer)
    assert eqx.tree_equal(updates, jnp.ones(3))
