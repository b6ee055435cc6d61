"""No key is drawn from twice, as far as JAX can tell, unless a comparison needs it."""

import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

import equistar as eqs


_UNROLL = eqs.RuggedRegression()
_TASK = eqs.tasks.Quadratic(jnp.ones(2))
_OPTIMIZER = eqs.HyperparamController(key=jr.key(0))
_WINDOWS = {"window": 3, "length": eqs.LogUniformLength(2, 5)}


@pytest.mark.parametrize(
    "draws",
    [
        lambda key: eqs.train(_TASK, _OPTIMIZER, steps=2, key=key),
        lambda key: eqs.analysis.invariances(_OPTIMIZER, steps=2, trials=2, key=key),
        *(
            lambda key, e=estimator: eqs.meta_gradient(
                _UNROLL, e, jnp.zeros(2), windows=2, key=key
            )
            for estimator in (
                eqs.PES(pairs=2, **_WINDOWS),
                eqs.TruncatedES(pairs=2, **_WINDOWS, carried=eqs.MeanTheta()),
                eqs.NRES(pairs=2, **_WINDOWS),
                eqs.FullES(3, pairs=2),
                eqs.ForwardGradient(3, particles=2),
            )
        ),
    ],
    ids="train invariances PES TruncatedES NRES FullES ForwardGradient".split(),
)
def test_no_key_is_used_twice(draws):
    with jax.debug_key_reuse(True):
        draws(jr.key(0))
