"""The shape of the noise that evolution strategies perturb `theta` with."""

import abc

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, PyTree

from .._kinds import as_number


class AbstractNoise(eqx.Module):
    """Gaussian noise, $\\epsilon \\sim N(0, \\sigma^2 S^2)$ with a diagonal $S$.

    `sigma` is an argument of the estimator; this class gives $S$.
    """

    @abc.abstractmethod
    def scale(self, theta: PyTree[Array]) -> PyTree[Array]:
        """The diagonal of $S$: for each array of `theta`, one that broadcasts to it.

        It must be positive and finite, which is checked before a run begins of what is
        known when functions are compiled: not of what depends on `theta`.
        """


class IsotropicNoise(AbstractNoise):
    """Every number of `theta` is perturbed alike: $S = I$."""

    def scale(self, theta: PyTree[Array]) -> PyTree[Array]:
        return jtu.tree_map(lambda p: jnp.ones((), p.dtype), theta)


class PerLeafNoise(AbstractNoise):
    """Each array of `theta` has a scale of its own.

    !!! Example

        ```python
        theta = {"log_rate": jnp.zeros(()), "weights": jnp.zeros((3, 3))}
        noise = eqs.PerLeafNoise({"log_rate": 10.0, "weights": 1.0})
        estimator = eqs.PES(sigma=0.01, noise=noise)
        ```
    """

    scales: PyTree

    def __init__(self, scales: PyTree):
        """**Arguments:**

        - `scales`: positive numbers in the structure of `theta`, or of its upper levels
            (one number then holds for all arrays below it).

        **Raises:**

        `ValueError` if a scale is not positive and finite; at the first use, if the
        structure does not fit `theta`.
        """
        number = lambda s: as_number(s, "A scale of noise", "10.0")
        self.scales = jtu.tree_map(number, scales)
        bad = [s for s in jtu.tree_leaves(self.scales) if not 0 < s < float("inf")]
        if bad:
            raise ValueError(f"Scales of noise must be positive and finite; got {bad[0]}.")

    def scale(self, theta: PyTree[Array]) -> PyTree[Array]:
        def spread(scale: float, below: PyTree[Array]) -> PyTree[Array]:
            return jtu.tree_map(lambda p: jnp.asarray(scale, p.dtype), below)

        try:
            return jtu.tree_map(spread, self.scales, theta)
        except ValueError as e:
            raise ValueError(
                "The scales of PerLeafNoise must have the structure of `theta`, or of its "
                f"upper levels: {jtu.tree_structure(self.scales)} does not fit "
                f"{jtu.tree_structure(theta)}."
            ) from e
