"""The update rule again, per element and with nothing shared: what tests compare with.

The 39 inputs of every element are stacked, normalised and multiplied by the weights as
the paper writes it. It costs ten times the time and forty times the memory of
`AbstractLearnedOptimizer.update`, which must agree with it.
"""

from typing import Any

import jax.nn as jnn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from equistar import AbstractLearnedOptimizer
from equistar._components import (
    BlackboxMLP,
    factored_axes,
    NoNetwork,
    Tensor,
    TIMESCALES,
)
from equistar.interop._order import kind_order


def reference_update_tensor(
    optimizer: AbstractLearnedOptimizer,
    grad: Float[Array, "*shape"],
    param: Float[Array, "*shape"],
    accumulators: dict[str, tuple[Any, ...]],
    count: Int[Array, ""],
) -> tuple[Float[Array, "*shape"], dict[str, tuple[Any, ...]]]:
    """`AbstractLearnedOptimizer.update` of one tensor, and its new accumulators, for
    optimizers with `AdafactorFeatures` and a `BlackboxMLP`, in the dtype of its arguments.
    """
    if param.size == 0:
        return jnp.zeros_like(param), accumulators
    before = Tensor(param, grad, accumulators, count)
    new = {
        name: optimizer.accumulators[name].update(state, before)
        for name, state in accumulators.items()
    }
    tensor = Tensor(param, grad, new, count)
    match optimizer.network:
        case NoNetwork():
            hidden = ()
        case BlackboxMLP(weights=weights, biases=biases):
            units = _reference_inputs(tensor)
            order = kind_order(len(tensor.momentum))
            first = weights[0][jnp.argsort(jnp.array(order))]
            for w, b in zip((first, *weights[1:]), biases, strict=True):
                products = jnp.tensordot(units, w, 1)
                units = jnn.relu(products + jnp.broadcast_to(b, products.shape))
            hidden = tuple(jnp.moveaxis(units, -1, 0))
        case other:
            raise ValueError(f"No reference for the network {type(other).__name__}.")
    learned = optimizer.blackbox(tensor, hidden) + optimizer.nominal(tensor, hidden)
    step = optimizer.gain(tensor) * learned + optimizer.weight_decay(tensor, hidden)
    return -jnp.broadcast_to(step, param.shape), new


def _reference_inputs(tensor: Tensor) -> Float[Array, "*shape inputs"]:
    g, p, v = tensor.grad, tensor.param, tensor.second_moment
    inverse_rms = 1 / jnp.sqrt(v + 1e-6)
    rows, columns, fac_g, fac_m = [], [], [], []
    for m, f in zip(tensor.momentum, tensor.factored, strict=True):
        if p.ndim < 2:
            row = column = f.row
            fac_g.append(g / jnp.sqrt(jnp.maximum(f.row + 1e-9, 1e-9)))
            fac_m.append(m / jnp.sqrt(f.row + 1e-6))
        else:
            d1, d0 = factored_axes(p.shape)
            row = jnp.broadcast_to(jnp.expand_dims(f.row, d0), p.shape)
            column = jnp.broadcast_to(jnp.expand_dims(f.column, d1), p.shape)
            relative = row / (jnp.mean(row, d1, keepdims=True) + 1e-9)
            factor = 1 / jnp.sqrt(jnp.maximum(relative, 1e-9))
            factor = factor / jnp.sqrt(jnp.maximum(column, 1e-9))
            fac_g.append(g * factor)
            fac_m.append(m * factor)
        rows.append(row)
        columns.append(column)
    inputs = [g, p, *tensor.momentum, v, *(m * inverse_rms for m in tensor.momentum)]
    inputs += [inverse_rms, *fac_g, *rows, *columns]
    inputs += [1 / jnp.sqrt(r + 1e-8) for r in rows + columns] + fac_m
    normalised = [x / jnp.sqrt(1e-5 + jnp.mean(x**2)) for x in inputs]
    count = tensor.count.astype(p.dtype)
    times = [jnp.tanh(count / tau - 1) for tau in TIMESCALES]
    spread_times = [jnp.full(p.shape, t, p.dtype) for t in times]
    return jnp.stack(normalised + spread_times, axis=-1)
