"""What an estimator needs of an unroll and of its settings, said before anything runs."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import PRNGKeyArray, PyTree

from .._kinds import check_count
from .._unrolls import (
    AbstractObjective,
    AbstractStepObjective,
    AbstractUnroll,
    check_is_unroll,
    Completed,
)
from ._particles import learned
from ._rollout import Particles


def check_windowed(window: int, objective: AbstractObjective) -> None:
    """Raises a `ValueError` for settings that windows of episodes cannot serve."""
    check_count(window, "window")
    whole = isinstance(objective, AbstractObjective)
    if whole and not isinstance(objective, AbstractStepObjective):
        raise ValueError(
            f"{type(objective).__name__} needs whole episodes, and this estimator sees "
            "windows of them: use FullES or FullBackprop, or an AbstractStepObjective, say "
            "MeanLoss()."
        )


def check_unroll(
    unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
) -> jax.ShapeDtypeStruct:
    """Raises a `ValueError` for an unroll whose carry or loss cannot be scanned over.

    Nothing is computed: only shapes are looked at. What the loss is like is returned.
    """
    check_is_unroll(unroll)
    learned(theta)
    own = unroll.unroll if isinstance(unroll, Completed) else unroll
    name = type(own).__name__
    carry = eqx.filter_eval_shape(lambda t, k: unroll.init(t, key=k), theta, key)
    _check_carry(carry, f"{name}.init")
    step = lambda t, c, k: unroll.step(t, c, key=k)
    stepped = eqx.filter_eval_shape(step, theta, carry, key)
    if not (isinstance(stepped, tuple) and len(stepped) == 2):
        raise ValueError(f"{name}.step must return a pair, (carry, loss).")
    after, loss = stepped
    shape, dtype = getattr(loss, "shape", None), getattr(loss, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        what = type(loss).__name__ if shape is None else f"{dtype} of shape {shape}"
        raise ValueError(
            f"{name}.step must return (carry, loss) with a floating-point scalar array for "
            f"the loss; got {what}."
        )
    _check_carry(after, f"{name}.step")
    if _described(carry) != _described(after):
        raise ValueError(
            f"{name}.step must return a carry like that of init, {_described(carry)}; got "
            f"{_described(after)}."
        )
    return loss


def _check_carry(carry: Any, method: str) -> None:
    if not all(hasattr(x, "shape") for x in jtu.tree_leaves(carry)):
        raise ValueError(
            f"{method} must return a carry of arrays; got {_described(carry)}. Use "
            "jnp.asarray for its numbers."
        )


def check_state(state: Any, kind: type, members: PyTree, noise: str | None = None) -> None:
    """Raises a `ValueError` for a state that `init` of other settings made.

    **Arguments:**

    - `state`: what `estimate` was given.
    - `kind`: what the estimator's `init` returns.
    - `members`: `theta` with leading axes of particles and members.
    - `noise`: the state's attribute with the noise of each particle, if it has one.
    """
    fits = isinstance(state, kind)
    if fits:
        particles = state if isinstance(state, Particles) else state.particles
        axes = jtu.tree_leaves(eqx.filter(members, eqx.is_inexact_array))[0].shape[:2]
        carries = jtu.tree_leaves(particles.carry)
        fits = particles.step.shape == axes[:1]
        fits = fits and all(x.shape[:2] == axes for x in carries)
    if fits and noise is not None:
        one = lambda x: (x.shape[0], *x.shape[2:])
        arrays = eqx.filter(members, eqx.is_inexact_array)
        shapes = [one(x) for x in jtu.tree_leaves(arrays)]
        fits = [x.shape for x in jtu.tree_leaves(getattr(state, noise))] == shapes
    _check_fits(fits)


def check_number(state: Any) -> None:
    """Raises a `ValueError` for a state that is not the number of estimates so far."""
    whole = hasattr(state, "dtype") and jnp.issubdtype(state.dtype, jnp.integer)
    _check_fits(whole and state.shape == ())


def _check_fits(fits: bool) -> None:
    if not fits:
        raise ValueError(
            "`state` is not of this estimator and `theta`: begin with `init(unroll, theta, "
            "key=key)` of the same ones."
        )


def _described(tree: Any) -> str:
    leaf = lambda x: f"{x.dtype}{list(x.shape)}" if hasattr(x, "shape") else repr(x)
    return str(jtu.tree_map(leaf, tree)).replace("'", "")
