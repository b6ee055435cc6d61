"""Between trees of parameters and the single tensors that parts see."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax.sharding import AxisType, NamedSharding, PartitionSpec, reshard
from jaxtyping import Array, PyTree


_KEEP_FLOATS = "keep the others out with `eqx.filter(model, eqx.is_inexact_array)`"
_SPLIT = "pass real and imaginary parts, as `optax.contrib.split_real_and_imaginary` does"


def check_params(params: PyTree) -> None:
    """Raises a `ValueError` that names the first leaf that cannot be optimized."""
    for path, leaf in jtu.tree_leaves_with_path(params):
        if kind := _no_floats(leaf):
            fix = _SPLIT if "complex" in kind else _KEEP_FLOATS
            raise ValueError(
                f"Parameters must be floating-point arrays, but params"
                f"{jtu.keystr(path)} is {kind}: {fix}."
            )


def check_grads(grads: PyTree, params: PyTree) -> None:
    """Raises a `ValueError` where `grads` has not the structure and shapes of `params`."""
    if params is None:
        raise ValueError(
            "The optimizer reads the parameters: call "
            "`update(grads, state, params)` with `params`."
        )
    check_params(params)
    grad_tree, param_tree = jtu.tree_structure(grads), jtu.tree_structure(params)
    if grad_tree != param_tree:
        raise ValueError(
            "Gradients and parameters must have one tree structure, and "
            f"{_apart(grads, params)}. Differentiate with respect to these params."
        )
    named = jtu.tree_leaves_with_path(grads)
    for (path, g), p in zip(named, jtu.tree_leaves(params), strict=True):
        if kind := _no_floats(g):
            raise ValueError(
                f"Gradients must be floating-point arrays, but grads{jtu.keystr(path)} "
                f"is {kind}: pass gradients with respect to these params."
            )
        if g.shape != p.shape:
            raise ValueError(
                f"grads{jtu.keystr(path)} has shape {g.shape} but its parameter has "
                f"shape {p.shape}: pass gradients with respect to these params."
            )


def _apart(grads: PyTree, params: PyTree) -> str:
    """The first leaf that only one tree has, or their structures."""
    one, other = (
        [jtu.keystr(path) for path, _ in jtu.tree_leaves_with_path(tree)]
        for tree in (grads, params)
    )
    for path in (x for x in other if x not in one):
        return f"grads have no {path}"
    for path in (x for x in one if x not in other):
        return f"params have no {path}"
    structures = jtu.tree_structure(grads), jtu.tree_structure(params)
    return "theirs are {!s:.200} and {!s:.200}".format(*structures)


def check_state(state: Any, kind: type, counter: str = "count") -> None:
    """Raises a `ValueError` if `state` is not of the class that `init` makes.

    **Arguments:**

    - `counter`: the attribute that counts steps, one integer.
    """
    if not isinstance(state, kind):
        raise ValueError(
            "The optimizer's state was made by another optimizer: call `init(params)` of "
            f"this one; got a {type(state).__name__}."
        )
    count = getattr(state, counter)
    dtype = getattr(count, "dtype", None)
    if dtype is None or count.shape or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"The {counter} of the optimizer's state must be one integer: call "
            f"`init(params)` for a state; got {count!r:.80}."
        )


def check_tensor_state(state: PyTree, expected: PyTree, shape: tuple[int, ...]) -> None:
    """Raises a `ValueError` unless a tensor's state has the shapes that `init` makes.

    And the dtypes, if either has fewer than 32 bits: sums of small numbers are lost there.
    """
    named = jtu.tree_leaves_with_path(state)
    for (path, ours), made in zip(named, jtu.tree_leaves(expected), strict=True):
        if kind := _no_floats(ours):
            raise ValueError(
                "The optimizer's state must be of floating-point arrays: call "
                f"`init(params)` for one; state{jtu.keystr(path)} is {kind}."
            )
        if jnp.shape(ours) != made.shape:
            raise ValueError(
                "The optimizer's state was made for other parameters: call `init(params)` "
                f"with these. Of a parameter of shape {shape}, state{jtu.keystr(path)} has "
                f"shape {jnp.shape(ours)} and not {made.shape}."
            )
        if ours.dtype != made.dtype and min(ours.dtype.itemsize, made.dtype.itemsize) < 4:
            raise ValueError(
                f"The optimizer's state must be kept as `init(params)` makes it, in "
                f"{made.dtype}: state{jtu.keystr(path)} is in {ours.dtype}{_instead(ours)}."
            )


def _instead(leaf: Array) -> str:
    if leaf.dtype.itemsize < 4:
        return ", in which small changes are lost. Cast the parameters alone"
    return ". Cast each leaf to the dtype that it has there"


def _no_floats(leaf: Any) -> str:
    dtype = getattr(leaf, "dtype", None)
    if dtype is None:
        return f"of type {type(leaf).__name__}"
    name = "float0" if dtype == jax.dtypes.float0 else dtype
    return "" if jnp.issubdtype(dtype, jnp.floating) else f"an array of {name}"


def broadcast_prefix(prefix: PyTree[int], params: PyTree) -> list[int]:
    """One integer for each leaf of `params`, from a pytree prefix of integers."""
    try:
        spread = jtu.tree_map(
            lambda n, tree: [n] * len(jtu.tree_leaves(tree)), prefix, params
        )
    except ValueError as e:
        raise ValueError(
            "`stacked_axes` must be an integer or a pytree prefix of the parameters: their "
            f"structure is {jtu.tree_structure(params)}, and its is "
            f"{jtu.tree_structure(prefix)}."
        ) from e
    return jtu.tree_leaves(spread)


def cut_alike(state: PyTree, param: Array, stacked: int) -> PyTree:
    """The state, on an explicit mesh cut along stacked axes as the parameter is.

    `jax.jit` leaves uncut what `jax.vmap` gives that does not depend on the parameter.
    """
    there = jax.typeof(param).sharding
    if not stacked or AxisType.Explicit not in there.mesh.axis_types:
        return state

    def cut(x: Array) -> Array:
        inner = jax.typeof(x).sharding.spec[stacked:]
        spec = PartitionSpec(*there.spec[:stacked], *inner)
        return reshard(x, NamedSharding(there.mesh, spec))

    return jtu.tree_map(cut, state)


def gather(tensor_states: Sequence[PyTree], outer: Any, inner: Any) -> PyTree[PyTree]:
    """From one state for each tensor to a state of trees, each of structure `inner`.

    `outer` is the structure of one tensor's state.
    """
    leaves = [outer.flatten_up_to(s) for s in tensor_states]
    columns = [[row[i] for row in leaves] for i in range(outer.num_leaves)]
    return outer.unflatten([inner.unflatten(column) for column in columns])


def scatter(tree_state: PyTree, outer: Any, inner: Any) -> list[PyTree]:
    """The inverse of `gather`.

    Raises a `ValueError` if the state was made for another tree.
    """
    try:
        columns = [inner.flatten_up_to(t) for t in outer.flatten_up_to(tree_state)]
    except ValueError as e:
        raise ValueError(
            "The optimizer's state was made for other parameters or by another optimizer: "
            f"call `init(params)` with these ({e})."
        ) from e
    return [
        outer.unflatten([column[i] for column in columns]) for i in range(inner.num_leaves)
    ]
