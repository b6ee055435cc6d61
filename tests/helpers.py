"""Small things that several test files need."""

import io
import os
import sys

import equinox as eqx
import jax
import jax.core
import jax.extend.core
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest

import equistar as eqs


def on_devices(number):
    """The environment of a process in which JAX starts with so many devices."""
    devices = f"--xla_force_host_platform_device_count={number}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def randomised(theta, key, scale=0.3):
    """`theta` with noise on every meta-learned number, so that every head is alive."""
    leaves, structure = jtu.tree_flatten(theta)
    keys = jr.split(key, len(leaves))
    noise = [
        scale * jr.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)
    ]
    noisy = [x + n for x, n in zip(leaves, noise, strict=True)]
    theta = structure.unflatten(noisy)
    # Offsets of decays are multiplied by ten in an exponent: keep them small.
    return jtu.tree_map_with_path(
        lambda path, x, y: y + 0.05 * (x - y) if "offsets" in jtu.keystr(path) else x,
        theta,
        structure.unflatten(leaves),
    )


def equations(jaxpr):
    """Those of a program and of all the programs inside of it."""
    # Older versions of JAX have it elsewhere.
    there = jax.extend.core if hasattr(jax.extend.core, "jaxprs_in_params") else jax.core
    for equation in jaxpr.eqns:
        yield equation
        for inner in there.jaxprs_in_params(equation.params):
            yield from equations(inner)


class LinearWalk(eqs.AbstractUnroll):
    """phi' = phi + sum(theta) + noise; the loss is phi. Episodes start at zero.

    l_t = t sum(theta) + noise, so the mean loss of T steps has gradient (T - 1) / 2 in
    each entry of theta, whatever the smoothing.
    """

    noise: float

    def init(self, theta, *, key):
        return jnp.zeros(())

    def step(self, theta, carry, *, key):
        shock = self.noise * jr.normal(key)
        total = sum(jnp.sum(x) for x in jtu.tree_leaves(theta))
        return carry + total + shock, carry


class QuadraticDescent(eqs.AbstractUnroll):
    """Gradient descent with step size theta on 1/2 sum h phi^2."""

    curvature: jax.Array
    start: jax.Array

    def init(self, theta, *, key):
        return self.start

    def step(self, theta, carry, *, key):
        loss = 0.5 * jnp.sum(self.curvature * carry**2)
        return carry - theta * self.curvature * carry, loss


@eqx.filter_jit
def windows(unroll, estimator, theta, key, number):
    """The estimates of consecutive windows."""
    init_key, run_key = jr.split(key)

    def body(state, n):
        out, state = estimator.estimate(unroll, theta, state, key=jr.fold_in(run_key, n))
        return state, out

    state = estimator.init(unroll, theta, key=init_key)
    return jax.lax.scan(body, state, jnp.arange(number))[1]


class Growth(eqs.AbstractUnroll):
    """Whose episodes start where theta says."""

    def init(self, theta, *, key):
        return jnp.exp(theta) * jr.uniform(key)

    def step(self, theta, carry, *, key):
        after = carry * jnp.cos(theta * jr.uniform(key))
        return after, after**2


def run_command(patch, *arguments):
    """The exit code of `equistar ARGUMENTS`, in the process itself."""
    # Imported late: most tests need no command line.
    from equistar._cli import main

    patch.setattr(sys, "argv", ["equistar", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        main()
    return exit.value.code


def measured(experiment):
    """What an experiment of a paper measures, as it is read from its file, and what it
    claims of that; its figure is drawn from the file, too."""
    from matplotlib.figure import Figure

    file = io.BytesIO()
    np.savez(file, **experiment.measure(lambda line: None))
    file.seek(0)
    with np.load(file) as saved:
        data = dict(saved)
    experiment.draw(Figure(), data)
    return data, experiment.claims(data)
