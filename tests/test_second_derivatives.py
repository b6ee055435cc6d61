"""A scan that is differentiated twice forgets the rules of `jax.custom_jvp` in its body."""

import functools as ft

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import equistar as eqs
from equistar._components._bfloat16 import stochastic_bfloat16
from equistar._components._means import means

from .helpers import Growth, randomised


REMATS = {
    "nothing": eqs.NoRematerialisation(),
    "every step": eqs.EveryStep(),
    "root": eqs.Segments(),
    "does not divide": eqs.Segments(3),
}


def _slope(f, x, step=1e-5):
    return (f(x + step) - f(x - step)) / (2 * step)


def _check_slope_of_meta_gradient(estimator, jacobian):
    theta = jnp.asarray(0.3)
    estimate = eqx.filter_jit(ft.partial(estimator.estimate, Growth()))
    state = estimator.init(Growth(), theta, key=jr.key(0))
    for key in jr.split(jr.key(1)):
        _, state = estimate(theta, state, key=key)
    gradient = lambda t: estimate(t, state, key=jr.key(2))[0].gradient
    np.testing.assert_allclose(
        jacobian(gradient)(theta), _slope(gradient, theta), rtol=1e-7
    )


@pytest.mark.parametrize("remat", REMATS.values(), ids=REMATS)
def test_a_meta_gradient_can_be_differentiated(remat):
    # Of 16 particles some start again inside of the window.
    estimator = eqs.TruncatedBackprop(7, 16, eqs.ConstantLength(10), remat=remat)
    _check_slope_of_meta_gradient(estimator, jax.jacfwd)


def test_a_meta_gradient_of_whole_episodes_can_be_differentiated_in_reverse():
    _check_slope_of_meta_gradient(eqs.FullBackprop(7, 16), jax.jacrev)


def test_training_by_star_can_be_differentiated_twice_in_a_scan():
    params = jnp.linspace(0.5, 1.5, 12).reshape(4, 3)
    star = randomised(eqs.STAR(key=jr.key(0)), jr.key(1))
    arrays, rest = eqx.partition(star, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(arrays)

    def total(flat):
        star = eqx.combine(unravel(flat), rest)

        def step(carry, _):
            params, state = carry
            updates, state = star.update(jnp.sin(params), state, params)
            return (params + updates, state), jnp.sum(params**2)

        return jnp.sum(lax.scan(step, (params, star.init(params)), length=3)[1])

    there = jr.normal(jr.key(3), flat.shape)
    gradient = jax.jit(jax.grad(total))
    curvature = jax.jit(lambda x: jax.jvp(jax.grad(total), (x,), (there,))[1])(flat)
    expected = _slope(lambda h: gradient(flat + h * there), 0.0)
    np.testing.assert_allclose(curvature, expected, atol=1e-6 * np.max(np.abs(expected)))


def _cubes(x, count):
    return means([x**3, jnp.ones_like(x)])[0]


def _rounded_cubes(x, count):
    kept = stochastic_bfloat16(x**3, count)
    return jnp.sum(kept.astype(x.dtype))


@pytest.mark.parametrize("function", [_cubes, _rounded_cubes])
def test_what_has_rules_of_its_own_has_the_same_derivatives_in_a_scan(function):
    x = jnp.linspace(1, 2, 5)

    def total(scan):
        def body(carry, count):
            return carry * function(x * carry, count), None

        return lambda y: scan(body, y, jnp.arange(3))[0]

    def written_out(body, carry, xs):
        for i in xs:
            carry, _ = body(carry, i)
        return carry, None

    second = lambda scan: jax.jacfwd(jax.grad(total(scan)))(jnp.asarray(0.7))
    np.testing.assert_allclose(second(lax.scan), second(written_out), rtol=1e-10)
