"""Losses may be of another dtype than the meta-parameters, and may diverge."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import equistar as eqs


T = 6
LENGTH, START = eqs.ConstantLength(T), eqs.LockStep()
ESTIMATORS = {
    "FullBackprop": eqs.FullBackprop(T, 2),
    "TruncatedBackprop": eqs.TruncatedBackprop(3, 2, LENGTH, START),
    "ForwardGradient": eqs.ForwardGradient(3, 2, LENGTH, START),
    "PES": eqs.PES(3, 4, 0.1, LENGTH, START),
    "NRES": eqs.NRES(3, 4, 0.1, LENGTH, START),
    "TruncatedES": eqs.TruncatedES(3, 4, 0.1, LENGTH, START),
    "FullES": eqs.FullES(T, 4, 0.1),
    "PESAnalytic": eqs.PESAnalytic(3, 4, 0.1, LENGTH, START),
}


class _Descent(eqs.AbstractUnroll):
    """Descent on a parabola from 1, with losses in a dtype of their own."""

    dtype: jnp.dtype = eqx.field(static=True)
    curvature: float = 1.0

    def init(self, theta, *, key):
        return jnp.ones((), theta.dtype)

    def step(self, theta, carry, *, key):
        loss = 1 + 0.1 * carry**2
        return carry - theta * self.curvature * carry, loss.astype(self.dtype)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_gradients_have_the_dtype_of_what_they_belong_to(name, dtype):
    args = _Descent(jnp.dtype(dtype)), ESTIMATORS[name], jnp.asarray(0.1, jnp.float32)
    out = eqs.meta_gradient(*args, key=jr.key(0))
    assert out.gradient.dtype == jnp.float32 and jnp.isfinite(out.gradient)
    assert out.meta_loss.dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)


# A difference of means that bfloat16 does not tell apart at 1: the losses of a step dither.
@pytest.mark.parametrize("name", ["FullES", "PES"])
def test_losses_of_few_bits_are_summed_in_float32(name):
    class Drifting(eqs.AbstractUnroll):
        def init(self, theta, *, key):
            return jr.uniform(key, (), jnp.float32)

        def step(self, theta, carry, *, key):
            dither = 2.0**-7 * jr.uniform(key, (), jnp.float32)
            loss = 1 + 0.3 * theta + dither
            return carry, loss.astype(jnp.bfloat16)

    steps = 200
    estimator = {
        "FullES": eqs.FullES(steps, 256, 0.01),
        "PES": eqs.PES(steps, 256, 0.01, eqs.ConstantLength(steps), START),
    }[name]
    theta = jnp.asarray(0.1, jnp.float32)
    out = eqs.meta_gradient(Drifting(), estimator, theta, key=jr.key(0))
    assert out.dead < 20
    np.testing.assert_allclose(out.gradient, 0.3, rtol=0.1)


@pytest.mark.parametrize("carried", [eqs.PlusMember(), eqs.MeanTheta()])
def test_only_members_that_an_estimate_is_made_of_are_counted(carried):
    estimator = eqs.TruncatedES(60, 4, 1e-3, eqs.ConstantLength(60), START, carried=carried)
    unroll = _Descent(jnp.dtype(jnp.float64), 1e9)
    out = eqs.meta_gradient(unroll, estimator, jnp.asarray(0.1), key=jr.key(0))
    assert out.diverged == 8


def test_a_run_with_wider_losses_goes_on_from_its_checkpoint(tmp_path):
    run = lambda steps: eqs.meta_train(
        _Descent(jnp.dtype(jnp.float64)),
        ESTIMATORS["PES"],
        jnp.asarray(0.1, jnp.float32),
        steps=steps,
        key=jr.key(0),
        checkpoints=eqs.Checkpoints(tmp_path),
    )
    run(2)
    state = run(3).state
    kinds = [x.dtype for x in jax.tree_util.tree_leaves(state) if hasattr(x, "dtype")]
    assert jnp.float64 not in kinds
