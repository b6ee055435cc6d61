"""A nominal step and a learned matrix: what the stability theorems are about."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._require import check_scalars


class LinearOptimizer(eqx.Module):
    """$\\phi' = \\phi - (\\alpha I + P) \\nabla l$: a nominal step and a learned matrix.

    **Attributes:**

    - `alpha`: $\\alpha$, the nominal term's step size. An array is differentiated; a number
        is not.
    - `matrix`: $P$.
    """

    alpha: float | Float[Array, ""]
    matrix: Float[Array, "n n"]

    def preconditioner(self) -> Float[Array, "n n"]:
        """$\\alpha I + P$.

        **Raises:** `ValueError` if `alpha` is not one number, or `matrix` no square one.
        """
        check_scalars(alpha=self.alpha)
        if jnp.ndim(self.matrix) != 2 or len(set(self.matrix.shape)) != 1:
            raise ValueError(f"`matrix` must be square; got shape {self.matrix.shape}.")
        eye = jnp.eye(len(self.matrix), dtype=self.matrix.dtype)
        return self.alpha * eye + self.matrix
