"""Derivatives of updates that go through `jax.vmap`: stacks of tensors, and users' own."""

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest

import equistar as eqs
from equistar._components._network import _affine, _mix, _perceptron

from .helpers import randomised


# JAX takes the axis of a batch in what a rule of `jax.custom_jvp` gives to be where the
# function has it. Where that is wrong, and both axes are equally long, nothing says so: the
# networks have four units.
WIDTH = 4
ADAPTIVE = randomised(eqs.AdaptiveSTAR(key=jr.key(0)), jr.key(1))
STAR = randomised(eqs.STAR(key=jr.key(0), magnitude_scale=0.1), jr.key(1))


def _of_squares(update, params):
    """Of the scale of parameters: a sum over the updates that gradients give there."""

    def total(scale):
        grads = jtu.tree_map(lambda x: scale * x + jnp.sin(3 * scale * x), params)
        return sum(jnp.sum(x**2) for x in jtu.tree_leaves(update(grads, params)))

    return total


def _has_the_derivative_of_differences(total):
    slope = jax.jit(jax.grad(total))(1.0)
    total, h = jax.jit(total), 1e-5
    np.testing.assert_allclose(slope, (total(1 + h) - total(1 - h)) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("number", [WIDTH, WIDTH + 1])
@pytest.mark.parametrize("optimizer", [ADAPTIVE, STAR], ids=["adaptive", "star"])
def test_tensors_that_are_stepped_as_one_have_the_derivative_of_their_update(
    optimizer, number
):
    params = [jr.normal(jr.key(i), (2, 3)) for i in range(number)]
    update = lambda g, p: optimizer.update(g, optimizer.init(p), p)[0]
    _has_the_derivative_of_differences(_of_squares(update, params))


def test_stacked_layers_have_the_derivative_of_their_update():
    layers = eqs.Stacked(ADAPTIVE, 1)
    update = lambda g, p: layers.update(g, layers.init(p), p)[0]
    params = jr.normal(jr.key(0), (WIDTH, 3, 2))
    _has_the_derivative_of_differences(_of_squares(update, params))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_batch_of_parameters_on_any_axis_has_the_derivative_of_their_updates(axis):
    one = lambda g, p: ADAPTIVE.update(g, ADAPTIVE.init(p), p)[0]
    update = jax.vmap(one, in_axes=axis)
    params = jr.normal(jr.key(0), (WIDTH, WIDTH))
    _has_the_derivative_of_differences(_of_squares(update, params))


KEYS = jr.split(jr.key(0), 4)
WEIGHT, BIAS = jr.normal(KEYS[0], (3, WIDTH)), jr.normal(KEYS[1], (WIDTH,))
FORMS = {
    "mix": lambda xs: _mix(WEIGHT, jnp.stack(xs)),
    "affine": lambda xs: jnp.stack(_affine((WEIGHT, (BIAS,)), xs)),
    "perceptron": lambda xs: jnp.stack(_perceptron([(WEIGHT, (BIAS,))], xs)),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("axis", [0, 1])
def test_both_forms_of_a_layer_have_the_axis_of_a_batch_in_one_place(name, axis):
    xs = tuple(jr.normal(KEYS[2], (3, WIDTH, WIDTH)))
    layer = jax.vmap(jax.jit(FORMS[name]), in_axes=axis)
    one_by_one = lambda xs: jnp.stack(
        [FORMS[name](tuple(jnp.take(x, i, axis) for x in xs)) for i in range(WIDTH)]
    )
    weights = jr.normal(KEYS[3], (WIDTH, WIDTH, WIDTH))
    slopes = lambda form: jax.grad(lambda xs: jnp.sum(weights * jnp.cos(form(xs))))(xs)
    for ours, expected in zip(slopes(layer), slopes(one_by_one), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-10, atol=1e-12)
