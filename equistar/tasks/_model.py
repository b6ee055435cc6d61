"""The model of a task: weights as parameters, everything else rebuilt from its sizes."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, PRNGKeyArray, PyTree

from ._architectures import AbstractArchitecture, BATCH


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
    rest = _without_parameters(
        lambda: architecture.build(in_shape, out_shape[-1], key=jr.key(0))
    )
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


# What is no parameter (activations, strides, an order of the inputs) is the same for every
# key. Only arrays among it need more than shapes.
def _without_parameters(build: Callable[[], eqx.Module]) -> PyTree:
    is_array = lambda x: isinstance(x, jax.ShapeDtypeStruct)
    arrays, rest = eqx.partition(eqx.filter_eval_shape(build), is_array)
    if all(jnp.issubdtype(x.dtype, jnp.inexact) for x in jtu.tree_leaves(arrays)):
        return rest
    return eqx.filter(build(), eqx.is_inexact_array, inverse=True)
