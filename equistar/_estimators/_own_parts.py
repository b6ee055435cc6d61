"""What parts of estimators return, looked at before a run begins: they may be anyone's."""

import contextlib
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._kinds import check_steps, is_real
from .._unrolls import (
    AbstractEpisodeLength,
    AbstractObjective,
    AbstractStepObjective,
    AbstractUnroll,
    Curriculum,
    draw_length,
    expected_length,
)
from ._base import AbstractEstimator
from ._checks import check_unroll
from ._noise import AbstractNoise
from ._particles import learned
from ._window import widened


_COUNT = jax.ShapeDtypeStruct((), jnp.int32)


def check_run(
    estimator: AbstractEstimator,
    unroll: AbstractUnroll,
    theta: PyTree,
    *,
    key: PRNGKeyArray,
) -> None:
    """Raises a `ValueError` for an unroll or a part that an estimator cannot run with.

    Shapes are looked at, and the values that are known already; no step is made.
    """
    loss = check_unroll(unroll, theta, key=key)
    fields = dataclasses.fields(estimator)  # pyright: ignore
    parts = [getattr(estimator, field.name) for field in fields]
    lengths = [part for part in parts if isinstance(part, AbstractEpisodeLength)]
    for length in lengths:
        check_length(length)
    for part in parts:
        if isinstance(part, AbstractNoise):
            check_noise(part, theta)
        if isinstance(part, AbstractObjective):
            for length in lengths:
                check_objective(part, loss, length)


def check_length(length: AbstractEpisodeLength) -> None:
    """Raises a `ValueError` for lengths that no episode can have.

    Of lengths that depend on traced numbers, or come later, only the kind is known.
    """
    for stage in length.stages if isinstance(length, Curriculum) else ():
        check_length(stage)
    name = type(length).__name__
    check_steps(length.maximum, f"{name}.maximum")
    drawn = eqx.filter_eval_shape(length.draw, _COUNT, key=jr.key(0))
    if not _is_number(drawn, jnp.integer, int):
        raise ValueError(
            f"{name}.draw must return one whole number, say `jnp.asarray(100)`; got "
            f"{_what(drawn)}."
        )
    mean = eqx.filter_eval_shape(length.mean, _COUNT)
    if not _is_number(mean, jnp.floating, float) and not _is_number(mean, jnp.integer, int):
        raise ValueError(
            f"{name}.mean must return one real number, say `jnp.asarray(100.0)`; got "
            f"{_what(mean)}."
        )
    if not _is_ours(length):
        _check_draws(length)


# Zero would be an episode without a step, and one that is longer than the longest is cut
# off by estimators that run whole ones.
def _check_draws(length: AbstractEpisodeLength) -> None:
    with jax.ensure_compile_time_eval():
        first, keys = jnp.zeros((), jnp.int32), jr.split(jr.key(0), 64)
        drawn = jax.vmap(lambda key: draw_length(length, first, key=key))(keys)
    if isinstance(drawn, jax.core.Tracer):
        return
    wrong = [int(n) for n in np.asarray(drawn) if not 1 <= n <= length.maximum]
    if wrong:
        name = type(length).__name__
        raise ValueError(
            f"{name}.draw must return at least 1 and at most {name}.maximum, which is "
            f"{length.maximum}; got {wrong[0]}."
        )


def check_objective(
    objective: AbstractObjective,
    loss: jax.ShapeDtypeStruct,
    length: AbstractEpisodeLength,
) -> None:
    """Raises a `ValueError` for an objective that is not one number.

    **Arguments:**

    - `loss`: what the unroll's is like.
    - `length`: of the episodes.
    """
    loss = jax.eval_shape(widened, loss)
    mean = jax.eval_shape(lambda now: expected_length(length, now), _COUNT)
    if isinstance(objective, AbstractStepObjective):
        value = eqx.filter_eval_shape(objective.step, loss, _COUNT, _COUNT, mean)
        _check_objective(objective, "step", value)
    losses = jax.ShapeDtypeStruct((int(length.maximum),), loss.dtype)
    value = eqx.filter_eval_shape(objective.episode, losses, _COUNT, mean)
    _check_objective(objective, "episode", value)


def _check_objective(objective: AbstractObjective, method: str, value: Any) -> None:
    if not _is_number(value, jnp.floating):
        raise ValueError(
            f"{type(objective).__name__}.{method} must return a floating-point scalar "
            f"array; got {_what(value)}."
        )


def check_noise(noise: AbstractNoise, theta: PyTree) -> None:
    """Raises a `ValueError` for scales that `theta` cannot be perturbed with.

    Values are looked at where they are known, which those that depend on `theta` are not
    in a compiled function.
    """
    arrays, name = learned(theta), f"{type(noise).__name__}.scale"
    # With a mesh of no devices JAX computes nothing, and the library's values need no look.
    known = contextlib.nullcontext if _is_ours(noise) else jax.ensure_compile_time_eval
    with known():
        scale = noise.scale(arrays)
    if jtu.tree_structure(scale) != jtu.tree_structure(arrays):
        raise ValueError(
            f"{name} must return numbers or arrays in the structure of `theta`, say "
            f"`jax.tree.map(jnp.ones_like, theta)`; got {_structure(scale)} for "
            f"{_structure(arrays)}."
        )
    for x, p in zip(jtu.tree_leaves(scale), jtu.tree_leaves(arrays), strict=True):
        if not _scales(x, p):
            raise ValueError(
                f"{name} must return a real number or array for each array of `theta`, "
                f"which broadcasts to it and keeps its dtype; got {_what(x)} for "
                f"{_what(p)}."
            )
        seen = not _is_ours(noise) and not isinstance(x, jax.core.Tracer)
        wrong = [s for s in np.ravel(x) if not 0 < s < np.inf] if seen else []
        if wrong:
            raise ValueError(
                f"{name} must return positive and finite numbers; got {wrong[0]}."
            )


def _scales(x: Any, array: Array) -> bool:
    if not is_real(x) or isinstance(x, bool) or jnp.issubdtype(jnp.result_type(x), bool):
        return False
    with jax.numpy_dtype_promotion("standard"):
        kept = jnp.result_type(x, array) == array.dtype
    try:
        return kept and np.broadcast_shapes(np.shape(x), array.shape) == array.shape
    except ValueError:
        return False


# What the library's own parts return follows from their settings, which are checked.
def _is_ours(part: eqx.Module) -> bool:
    return type(part).__module__.split(".")[0] == __name__.split(".")[0]


def _is_number(x: Any, kind: Any, plain: type | None = None) -> bool:
    """Whether `x` is a scalar array of that kind, or a number of Python's `plain` type."""
    if not hasattr(x, "dtype"):
        return plain is not None and type(x) is plain
    return x.shape == () and bool(jnp.issubdtype(x.dtype, kind))


def _what(x: Any) -> str:
    return f"{x.dtype} of shape {x.shape}" if hasattr(x, "dtype") else type(x).__name__


def _structure(tree: PyTree) -> str:
    return str(jtu.tree_structure(tree)).removeprefix("PyTreeDef(")[:-1][:200]
