"""What particles recorded in a window of their unrolls."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._numerics import accumulator_dtype
from .._unrolls import AbstractStepObjective


class Window(eqx.Module):
    """What particles recorded in a window.

    **Attributes:**

    - `losses`: those of the unroll, with axes of steps, particles and members.
    - `fresh`: whether a step belongs to an episode that began inside the window.
    - `step`: its number in its episode, from 0.
    - `length`: of its episode.
    - `mean_length`: the length that was expected when it began.
    """

    losses: PyTree[Array]
    fresh: Bool[Array, "steps particles"]
    step: Int[Array, "steps particles"]
    length: Int[Array, "steps particles"]
    mean_length: Float[Array, "steps particles"]

    def values(
        self, objective: AbstractStepObjective, losses: Float[Array, "steps particles n"]
    ) -> Float[Array, "steps particles n"]:
        """The objective's value of each step."""
        members = jax.vmap(objective.step, in_axes=(0, None, None, None))
        every = jax.vmap(jax.vmap(members))
        return every(losses, self.step, self.length, self.mean_length)

    def split_mean(
        self, values: Float[Array, "steps particles ..."]
    ) -> tuple[Array, Array]:
        """`(old, fresh)`: sums over the steps of each, divided by the window's length.

        The old episode was running when the window began; fresh ones began inside it.
        """
        fresh = self.fresh.reshape(self.fresh.shape + (1,) * (values.ndim - 2))
        mean = lambda x: jnp.sum(x, axis=0) / len(values)
        return mean(jnp.where(fresh, 0, values)), mean(jnp.where(fresh, values, 0))


def widened(losses: PyTree[Array]) -> PyTree[Array]:
    """Losses of fewer than 32 bits as float32; anything else as it is.

    In fewer bits, means over an episode and the differences of a pair are rounded away.
    """

    def wide(x: Array) -> Array:
        is_loss = jnp.issubdtype(x.dtype, jnp.floating)
        return x.astype(accumulator_dtype(x.dtype)) if is_loss else x

    return jtu.tree_map(wide, losses)
