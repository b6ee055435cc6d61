"""The model of a task: weights as parameters, everything else rebuilt from its sizes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, PRNGKeyArray, PyTree

from ._architectures import AbstractArchitecture
from ._architectures._base import BATCH


def init_model(
    architecture: AbstractArchitecture,
    in_shape: tuple[int, ...],
    out_size: int,
    *,
    key: PRNGKeyArray,
) -> PyTree[Array]:
    """The floating-point arrays of a new model, which are a task's parameters."""
    return eqx.filter(architecture.build(in_shape, out_size, key=key), eqx.is_inexact_array)


def apply_model(
    architecture: AbstractArchitecture,
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    params: PyTree[Array],
    inputs: Array,
) -> Array:
    """A model's outputs for a minibatch of inputs, each of `out_shape`.

    They are computed in the parameters' dtype and returned in the default one: what a
    loss makes of them keeps its precision.
    """
    # Shapes only: what is not a weight (activations, strides) is the same for every key.
    build = lambda key: architecture.build(in_shape, out_shape[-1], key=key)
    skeleton = eqx.filter_eval_shape(build, jr.key(0))
    _, rest = eqx.partition(skeleton, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    model: Any = eqx.combine(params, rest)
    if jnp.issubdtype(inputs.dtype, jnp.inexact):
        inputs = inputs.astype(jnp.result_type(*jtu.tree_leaves(params)))
    outputs = jax.vmap(model, axis_name=BATCH)(inputs)
    if jnp.shape(outputs)[1:] != out_shape:
        raise ValueError(
            f"The model of {type(architecture).__name__} returns {jnp.shape(outputs)[1:]} "
            f"for an input of {in_shape}, and the task needs {out_shape}: sequences take "
            "an architecture such as `Recurrent`, other inputs one such as `MLP`."
        )
    return outputs.astype(jnp.zeros(()).dtype)
