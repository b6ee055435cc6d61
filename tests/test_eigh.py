"""The eigendecomposition that may be batched: jax's own, one matrix at a time on a CPU."""

import re

import jax
import jax.export
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from equistar._eigh import eigh


def _drawn(count):
    x = jr.normal(jr.key(0), (count, 4, 4))
    return x + jnp.swapaxes(x, 1, 2)


def test_values_vectors_and_derivatives_are_jaxs():
    weights = jr.normal(jr.key(1), (4, 4))

    def through(decompose):
        def function(matrix):
            values, vectors = decompose(matrix)
            return jnp.sum(weights * ((vectors * jnp.exp(values)[None]) @ vectors.T))

        return function

    ours, theirs = through(eigh), through(jnp.linalg.eigh)
    for matrix in _drawn(3):
        np.testing.assert_allclose(ours(matrix), theirs(matrix), rtol=1e-12)
        for order in (jax.grad, jax.jacfwd, jax.hessian):
            expected = order(theirs)(matrix)
            np.testing.assert_allclose(order(ours)(matrix), expected, rtol=1e-9, atol=1e-9)
    batched = jax.jit(jax.vmap(jax.grad(ours)))(_drawn(5))
    expected = [jax.grad(theirs)(m) for m in _drawn(5)]
    np.testing.assert_allclose(batched, jnp.stack(expected), rtol=1e-9, atol=1e-9)


def test_eigenvalues_that_coincide_have_derivatives():
    slope = jax.grad(lambda m: jnp.sum(eigh(m)[0] ** 2))(3 * jnp.eye(2))
    np.testing.assert_allclose(slope, 6 * jnp.eye(2))


def test_a_batch_is_taken_one_matrix_at_a_time():
    # A batched call of LAPACK waits for other threads of the pool that it holds one of.
    text = jax.jit(jax.vmap(eigh)).lower(_drawn(5)).as_text()
    calls = re.findall(r"@lapack_\w+\(.*?\) \{.*?\} : \((.*?)\)", text, re.S)
    assert calls and all("tensor<4x4x" in c and "tensor<5x" not in c for c in calls)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_an_accelerator_it_is_taken_together_in_derivatives_as_well(platform):
    slope = jax.grad(lambda m: jnp.sum(eigh(m)[1][:, 0] ** 4))
    for function in (eigh, jax.jacfwd(slope)):
        batched = jax.export.export(jax.jit(jax.vmap(function)), platforms=[platform])
        assert "while" not in batched(_drawn(5)).mlir_module()


def test_batches_of_batches_are_jaxs():
    matrices = _drawn(6).reshape(2, 3, 4, 4)
    ours, theirs = jax.vmap(jax.vmap(eigh))(matrices), jnp.linalg.eigh(matrices)
    jax.tree.map(np.testing.assert_array_equal, tuple(ours), tuple(theirs))
