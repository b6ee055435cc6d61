"""Eigenvalues and their vectors, of a matrix or of what is known by its products alone."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray


class Eigenpairs(NamedTuple):
    """Eigenvalues, their vectors in columns, and what they cost.

    **Attributes:**

    - `products`: matrix-vector products that were computed.
    - `converged`: whether there are as many as were asked for.
    """

    values: np.ndarray
    vectors: np.ndarray
    products: int
    converged: bool


def eigenpairs(matrix: np.ndarray) -> Eigenpairs:
    """All of them."""
    values, vectors = np.linalg.eig(matrix)
    return Eigenpairs(values, vectors, len(matrix), True)


def leading_eigenpairs(
    product: Callable[[np.ndarray], np.ndarray],
    size: int,
    number: int,
    tolerance: float,
    key: PRNGKeyArray,
) -> Eigenpairs:
    """Those of largest magnitude, by ARPACK's implicitly restarted Arnoldi iteration.

    It does not converge where many are of one magnitude, as those of momentum are: then
    they are the Ritz values of a larger Krylov space, which are estimates.
    """
    # Imported late: it is slow, and only this function needs it.
    from scipy.sparse.linalg import ArpackNoConvergence, eigs, LinearOperator

    count = [0]

    def counted(v: np.ndarray) -> np.ndarray:
        count[0] += 1
        return product(v.ravel())

    operator: Any = LinearOperator((size, size), matvec=counted, dtype=np.float64)  # pyright: ignore
    start = np.asarray(jr.normal(key, (size,)), np.float64)
    settings = {"which": "LM", "v0": start, "tol": tolerance, "maxiter": 150}
    # Where a random vector is mapped to zero all are: ARPACK has nothing to begin with.
    if not np.any(counted(start)):
        return Eigenpairs(np.zeros(number), np.eye(size, number), count[0], True)
    krylov = min(size, max(4 * number, 24))
    try:
        found: Any = eigs(operator, k=number, ncv=krylov, **settings)
    except ArpackNoConvergence:
        values, vectors = _ritz(counted, start, min(size, _LARGER))
        return Eigenpairs(values, vectors, count[0], False)
    return Eigenpairs(found[0], found[1], count[0], True)


# Of so many dimensions is the space in which estimates are sought.
_LARGER = 100


def _ritz(
    product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, dimensions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Ritz values and vectors of a Krylov space, by Arnoldi's iteration."""
    basis = start[None] / np.linalg.norm(start)
    images = np.zeros((0, start.size))
    for _ in range(dimensions):
        images = np.vstack([images, product(basis[-1])])
        rest = images[-1]
        # Once is not enough in floating point.
        for _ in range(2):
            rest = rest - (basis @ rest) @ basis
        if len(images) == dimensions or not np.linalg.norm(rest) > 0:
            break
        basis = np.vstack([basis, rest / np.linalg.norm(rest)])
    values, vectors = np.linalg.eig(basis @ images.T)
    return values, basis.T @ vectors


def residual_norms(
    product: Callable, values: np.ndarray, vectors: np.ndarray
) -> np.ndarray:
    """The norms of A v - lambda v, of v in the columns of `vectors`."""
    pairs = zip(values, vectors.T, strict=True)
    image = lambda v: product(v.real) + 1j * product(v.imag)
    return np.array([np.linalg.norm(image(v) - value * v) for value, v in pairs])
