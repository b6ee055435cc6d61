"""Eigenvalues and eigenvectors of symmetric matrices, in batches that cannot hang."""

import jax
import jax.lax as lax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Float

from ._numerics import matmul


@jax.custom_jvp
def eigh(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """`jnp.linalg.eigh` that may be batched on a machine of few cores.

    jaxlib's batched LAPACK calls wait, on a thread of XLA's pool, for other threads of it:
    two of them at once hang a machine of two cores for good. Under `jax.vmap` this one
    takes the matrices in turn there, and together on a GPU or TPU.

    **Arguments:**

    - `matrix`: symmetric.

    **Returns:**

    The eigenvalues, rising, and the eigenvectors as columns; all NaN if an entry is.
    Derivatives of the vectors are not finite where eigenvalues coincide.
    """
    # Of a block of NaN, LAPACK keeps the eigenvalues of the others, out of their order.
    whole = jnp.where(jnp.any(jnp.isnan(matrix)), jnp.nan, matrix)
    return _batched_by_device(whole)


def _decomposed(
    matrix: Float[Array, "... n n"],
) -> tuple[Float[Array, "... n"], Float[Array, "... n n"]]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


_batched_by_device = custom_vmap(_decomposed)


@_batched_by_device.def_vmap
def _batch(
    size: int, batched: list[bool], matrices: Float[Array, "batch n n"]
) -> tuple[tuple[Array, Array], tuple[bool, bool]]:
    in_turn = lambda x: lax.map(_batched_by_device, x)
    found = lax.platform_dependent(matrices, cpu=in_turn, default=_decomposed)
    return found, (True, True)


# d values = diag(V' dA V), d V = V (F * V' dA V) with F_ij = 1 / (values_j - values_i).
@eigh.defjvp
def _eigh_jvp(
    primals: tuple[Float[Array, "n n"]], tangents: tuple[Float[Array, "n n"]]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    (tangent,) = tangents
    values, vectors = eigh(*primals)
    inner = matmul(matmul(vectors.T, 0.5 * (tangent + tangent.T)), vectors)
    eye = jnp.eye(len(values), dtype=values.dtype)
    inverse_gaps = 1 / (eye + values[None, :] - values[:, None]) - eye
    moved = jnp.diagonal(inner), matmul(vectors, inverse_gaps * inner)
    return (values, vectors), moved
