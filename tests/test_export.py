"""Every jitted entry point lowers for CPU, CUDA and TPU on any machine."""

import equinox as eqx
import jax
import jax.export
import jax.numpy as jnp
import jax.random as jr
import pytest

import equistar as eqs


PLATFORMS = ("cpu", "cuda", "tpu")


def _lowers(function, *arguments):
    """Exports a function of pytrees; what is not an array stays outside."""
    dynamic, static = eqx.partition(arguments, eqx.is_array)
    key_free = lambda d: function(*eqx.combine(d, static))
    exported = jax.export.export(jax.jit(key_free), platforms=PLATFORMS)(dynamic)
    assert exported.platforms == PLATFORMS


@pytest.fixture(scope="module")
def star():
    return eqs.STAR(key=jr.key(0))


def test_update_lowers(star):
    params = {"w": jnp.ones((3, 2), jnp.float32), "b": jnp.ones(2, jnp.bfloat16)}
    state = star.init(params)
    _lowers(lambda o, g, s, p: o.update(g, s, p), star, params, state, params)


def test_train_lowers(star):
    task = eqs.tasks.digits_mlp()
    run = lambda t, o, key: eqs.train(t, o, steps=3, key=jr.wrap_key_data(key)).losses
    _lowers(run, task, star, jr.key_data(jr.key(0)))


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
        out = eqs.meta_gradient(unroll, estimator, theta, key=jr.wrap_key_data(key))
        return out.gradient, out.meta_loss

    _lowers(run, unroll, star, jr.key_data(jr.key(0)))
