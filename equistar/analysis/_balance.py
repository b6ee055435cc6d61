"""Units in which a linear map is well scaled, from its products alone."""

from collections.abc import Callable

import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray


# Rows of that many random sums are equal within a small factor, and more do not help.
ROUNDS = 8


def balance(
    product: Callable[[np.ndarray], np.ndarray], units: np.ndarray, *, key: PRNGKeyArray
) -> np.ndarray:
    """Units in which the rows of a map are of about equal norm, by `ROUNDS` products.

    In units $d$ a map $A$ is $D^{-1} A D$: its eigenvalues are the same, but they are found
    far more precisely where no row is much longer than others. The product with a vector
    of random signs has entries of about the norms of the rows; each unit takes the square
    root of its row's, a few times over.

    **Arguments:**

    - `product`: $v \\mapsto A v$.
    - `units`: to start from.
    - `key`: the signs are drawn with it.

    ??? cite

        The one-sided Krylov balancing, here damped, of

        ```bibtex
        @article{chen2000balancing,
            title={Balancing Sparse Matrices for Computing Eigenvalues},
            author={Chen, Tzu-Yi and Demmel, James W.},
            journal={Linear Algebra and its Applications},
            volume={309},
            pages={261--287},
            year={2000},
        }
        ```
    """
    for signs in np.asarray(jr.rademacher(key, (ROUNDS, units.size)), np.float64):
        rows = np.abs(product(signs * units)) / units
        # What maps to zero has no scale of its own; overflow says nothing.
        known = (rows > 0) & np.isfinite(rows)
        units = units * np.sqrt(np.where(known, rows, 1))
    return units
