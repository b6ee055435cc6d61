"""What an optimizer's update does not depend on, measured."""

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, PRNGKeyArray, PyTree
from rich.table import Table

from .._kinds import as_count
from .._linear_loss import linear_loss
from .._numerics import tree_norm
from .._optimizers import AbstractOptimizer
from .._text import as_text


_Tensors: TypeAlias = dict[str, Array]

# The problem's tensors, and names that sort the other way round. The matrix is large
# enough for what is done to large ones alone.
_SHAPES = {"a": (64, 48), "b": (4,), "c": (5,)}
_RENAMED = {"a": "z", "b": "y", "c": "x"}


class Invariances(eqx.Module):
    """What [`equistar.analysis.invariances`][] returns; `print` shows a table.

    All but the last are sizes of what breaks the property, relative to the update: 0 is
    exact, rounding is about 1e-6 in float32, and 1 is as large as the update itself. The
    table says that a property holds where this is below 1e-5. Of an
    optimizer that does not move, or whose update is not finite, they say nothing: NaN.

    **Attributes:**

    - `fixed_point`: the update of a fresh state at a zero gradient.
    - `element_permutation`: elements of each tensor permuted.
    - `row_permutation`: rows and columns of each tensor permuted.
    - `leaf_order`: the tree's leaves in another order.
    - `translation`: parameters moved by a constant.
    - `loss_scale`: all gradients multiplied by 100.
    - `coordinate_scale`: each coordinate measured in its own unit.
    - `descent_rate`: share of steps on which the update points downhill,
        $\\langle u, g \\rangle < 0$.
    """

    fixed_point: float
    element_permutation: float
    row_permutation: float
    leaf_order: float
    translation: float
    loss_scale: float
    coordinate_scale: float
    descent_rate: float

    def table(self) -> Table:
        """As a table for a `rich.console.Console`."""
        table = Table(title="What an update does not depend on")
        for heading in ("property", "holds", "broken by"):
            table.add_column(heading)
        for name in vars(self):
            value = getattr(self, name)
            text = name.replace("_", " ")
            if name == "descent_rate":
                table.add_row(text, f"{value:.0%} of steps", "")
            else:
                table.add_row(text, _holds(value), f"{value:.2g}")
        return table

    def __str__(self) -> str:
        return as_text(self.table(), width=80)


def invariances(
    optimizer: AbstractOptimizer,
    *,
    steps: int = 20,
    trials: int = 200,
    scale: float = 1e-2,
    key: PRNGKeyArray | None = None,
) -> Invariances:
    """Measures one-step properties of any optimizer.

    A small tree (a matrix of 64 x 48 and two vectors) sees random gradients for `steps`
    steps; the last update is compared with that of the transformed problem: parameters and
    all gradients transformed alike. An optimizer that takes the loss is given a linear one
    with each gradient, 1 at the parameters. A line search does not end on it: its
    properties are unknown.

    **Arguments:**

    - `optimizer`: learned, or an [`equistar.OptaxOptimizer`][].
    - `steps`: gradients that fill the state, the last one included.
    - `trials`: random problems over which the descent rate is taken.
    - `scale`: of the gradients.
    - `key`: a PRNG key; by default `jax.random.key(0)`.

    **Returns:**

    An [`equistar.analysis.Invariances`][].

    **Raises:**

    `ValueError` if `steps` or `trials` is below 1.
    """
    steps = as_count(steps, "steps")
    trials = as_count(trials, "trials")
    key = jr.key(0) if key is None else key
    params_key, grads_key, trial_key, move_key = jr.split(key, 4)
    params, grads = _problem(scale, steps, params_key, grads_key)
    update = _last_update(optimizer, params, grads)
    norm = lambda tree: tree_norm(tree, jnp.zeros(()).dtype)
    size = norm(update)

    def broken(change: _Change) -> float:
        stacked = jax.vmap(change.grads)(grads)
        moved = _last_update(optimizer, change.params(params), stacked)
        difference = jtu.tree_map(jnp.subtract, moved, change.update(update))
        return float(norm(difference) / size)

    still = _last_update(optimizer, params, jtu.tree_map(lambda g: 0 * g[:1], grads))
    return Invariances(
        fixed_point=float(norm(still) / size),
        **{name: broken(change) for name, change in _changes(move_key).items()},
        descent_rate=float(_descent(optimizer, scale, steps, trials, trial_key)),
    )


class _Change(NamedTuple):
    """A change of a problem: of its parameters, its gradients, and thus of its update."""

    params: Callable[[_Tensors], _Tensors]
    grads: Callable[[_Tensors], _Tensors]
    update: Callable[[_Tensors], _Tensors]


def _changes(key: PRNGKeyArray) -> dict[str, _Change]:
    """What an update may not depend on, by the name of the property."""
    unit_key, element_key, row_key = jr.split(key, 3)
    units = jtu.tree_map(jnp.exp, _normal(unit_key))
    elements = lambda tree: _each(_permuted, tree, element_key)
    rows = lambda tree: _each(_permuted_by_axis, tree, row_key)
    renamed = lambda tree: {_RENAMED[n]: x for n, x in tree.items()}
    same = lambda tree: tree
    moved = lambda tree: {n: x + 3 for n, x in tree.items()}
    larger = lambda tree: {n: 100 * x for n, x in tree.items()}
    times = lambda tree: {n: x * units[n] for n, x in tree.items()}
    over = lambda tree: {n: x / units[n] for n, x in tree.items()}
    return {
        "element_permutation": _Change(elements, elements, elements),
        "row_permutation": _Change(rows, rows, rows),
        "leaf_order": _Change(renamed, renamed, renamed),
        "translation": _Change(moved, same, same),
        "loss_scale": _Change(same, larger, same),
        "coordinate_scale": _Change(times, over, times),
    }


# With the same keys for every tree: parameters, gradients and updates move alike.
def _each(
    change: Callable[[Array, PRNGKeyArray], Array], tree: _Tensors, key: PRNGKeyArray
) -> _Tensors:
    keys = jr.split(jr.clone(key), len(tree))
    return {name: change(tree[name], k) for name, k in zip(sorted(tree), keys, strict=True)}


def _permuted(x: Array, key: PRNGKeyArray) -> Array:
    return jr.permutation(key, x.reshape(-1)).reshape(x.shape)


def _permuted_by_axis(x: Array, key: PRNGKeyArray) -> Array:
    for axis in range(x.ndim):
        x = jr.permutation(jr.fold_in(key, axis), x, axis=axis)
    return x


def _holds(value: float) -> str:
    if not math.isfinite(value):
        return "unknown"
    return "yes" if value < 1e-5 else "no"


def _problem(
    scale: float, steps: int, params_key: PRNGKeyArray, grads_key: PRNGKeyArray
) -> tuple[_Tensors, _Tensors]:
    """Parameters, and a gradient for each step."""
    grads = jax.vmap(_normal)(jr.split(grads_key, steps))
    return _normal(params_key), jtu.tree_map(lambda g: scale * g, grads)


def _normal(key: PRNGKeyArray) -> _Tensors:
    keys = jr.split(key, len(_SHAPES))
    dtype = jnp.zeros(()).dtype
    pairs = zip(_SHAPES.items(), keys, strict=True)
    return {name: jr.normal(k, shape, dtype) for (name, shape), k in pairs}


@eqx.filter_jit
def _last_update(
    optimizer: AbstractOptimizer, params: PyTree[Array], grads: PyTree[Array]
) -> PyTree[Array]:
    """The update at the last of a sequence of gradients, parameters held where they are."""

    def body(state: PyTree, g: PyTree[Array]) -> tuple[PyTree, PyTree[Array]]:
        updates, state = optimizer.update(g, state, params, **linear_loss(g, params))
        return state, updates

    state = optimizer.init(params)
    _, updates = jax.lax.scan(body, state, grads)
    return jtu.tree_map(lambda u: u[-1], updates)


@eqx.filter_jit
def _descent(
    optimizer: AbstractOptimizer,
    scale: float,
    steps: int,
    trials: int,
    key: PRNGKeyArray,
) -> Array:
    def trial(key: PRNGKeyArray) -> Array:
        params, grads = _problem(scale, steps, *jr.split(key))
        update = _last_update(optimizer, params, grads)
        products = jtu.tree_map(lambda u, g: jnp.sum(u * g[-1]), update, grads)
        return jnp.sum(jnp.stack(jtu.tree_leaves(products))) < 0

    return jnp.mean(jax.vmap(trial)(jr.split(key, trials)).astype(jnp.zeros(()).dtype))
