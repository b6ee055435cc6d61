"""A loss of given gradients, for optimizers that ask for one."""

from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float, PyTree


def linear_loss(grads: PyTree[Array], params: PyTree[Array]) -> dict[str, Any]:
    """The extra arguments of an update: those of the linear loss with these gradients.

    It is 1 at `params`, for Polyak steps are as long as a loss is above zero.
    Optax's line searches and Polyak steps take them, and other optimizers ignore them.
    """

    dtypes = {x.dtype for x in jtu.tree_leaves(params)}
    wide = jnp.float64 if jnp.dtype("float64") in dtypes else jnp.float32

    def value_fn(at: PyTree[Array]) -> Float[Array, ""]:
        dot = lambda g, p, q: jnp.sum(g.astype(wide) * (q.astype(wide) - p.astype(wide)))
        products = jtu.tree_map(dot, grads, params, at)
        return jtu.tree_reduce(jnp.add, products, jnp.ones((), wide))

    return {"value": value_fn(params), "value_fn": value_fn, "grad": grads}
