"""Whether the parts of an optimizer fit together, and are those of one and no batch."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu

from .._kinds import check_parts
from .._optimizers import (
    AbstractLearnedOptimizer,
    AbstractOptimizer,
    Decay,
    OptaxOptimizer,
    Positive,
    Safeguarded,
    Scaled,
)
from ._encoding import WeightsError


def check_fits(optimizer: Any) -> None:
    """Raises where parts do not fit together, whatever tree the optimizer is for.

    An update of some tree of our own would not tell: an optimizer with a mask, or one of
    the user's own, may belong to another.

    **Raises:**

    `WeightsError` for what is no optimizer, or a batch of them, which cannot be told of
    the user's own; else what the part that does not fit raises.
    """
    if not isinstance(optimizer, AbstractOptimizer):
        raise WeightsError("it does not hold an optimizer.")
    for part in _optimizers_in(optimizer):
        match part:
            case AbstractLearnedOptimizer():
                # Every tensor is handled alone, in any tree.
                _trace_update(part)
            case OptaxOptimizer():
                _check_hyperparameters(part)
            case Scaled():
                check_parts(part)
                _check_one("learning_rate", part.learning_rate)
                _check_one("weight_decay", part.weight_decay)
            case Safeguarded():
                check_parts(part)


def _optimizers_in(optimizer: AbstractOptimizer) -> list[AbstractOptimizer]:
    """The optimizer and those inside of it."""
    is_inner = lambda x: x is not optimizer and isinstance(x, AbstractOptimizer)
    nodes = jtu.tree_leaves(optimizer, is_leaf=is_inner)
    return [optimizer, *(x for n in nodes if is_inner(n) for x in _optimizers_in(n))]


def _check_hyperparameters(optimizer: OptaxOptimizer) -> None:
    for name, hyperparameter in optimizer.hyperparameters.items():
        if isinstance(hyperparameter, Positive | Decay):
            _check_one(name, hyperparameter())
    # As in the optimizer's own `init`.
    with jax.numpy_dtype_promotion("standard"):
        optimizer.factory(**{name: h() for name, h in optimizer.hyperparameters.items()})


def _check_one(name: str, value: Any) -> None:
    """Raises a `WeightsError` for a batch of numbers in the place of one."""
    if not callable(value) and jnp.size(value) != 1:
        raise WeightsError(
            f"`{name}` has shape {jnp.shape(value)}, as in a batch of optimizers: save one "
            "of a batch at a time, with one number."
        )


def _trace_update(optimizer: AbstractOptimizer) -> None:
    params = {"matrix": jnp.zeros((2, 3)), "vector": jnp.zeros(2)}
    loss = lambda p: jnp.sum(p["matrix"]) + jnp.sum(p["vector"])
    more = {"value": loss(params), "value_fn": loss, "grad": params}
    jax.eval_shape(lambda p: optimizer.update(p, optimizer.init(p), p, **more), params)
