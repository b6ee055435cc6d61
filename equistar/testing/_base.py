"""What a property is, and what properties are tried on."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
from hypothesis import given, Phase, settings
from jaxtyping import Array, PyTree

from .._linear_loss import linear_loss
from .._optimizers import AbstractOptimizer
from ._strategies import (
    DTYPES,
    gradient_sequences,
    Gradients,
    parameter_recipes,
    Parameters,
    STRUCTURES,
)


Optimizer = AbstractOptimizer | optax.GradientTransformation

# Of what is compared with itself, and of what is promised for every step: averages of the
# first steps are not those of later ones.
STEPS, MANY_STEPS = 4, 64
# One tree for most properties: a scalar, a matrix, a vector, an empty array and a None.
SHAPES = {"w": (3, 2), "b": (2,), "s": (), "empty": (0,)}


class _Transformation(AbstractOptimizer):
    """An optax transformation as an optimizer."""

    transformation: optax.GradientTransformation

    def init(self, params: PyTree) -> PyTree:
        with jax.numpy_dtype_promotion("standard"):
            return self.transformation.init(params)

    def update(
        self, grads: PyTree, state: PyTree, params: PyTree, **extra: Any
    ) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"):
            transformation = optax.with_extra_args_support(self.transformation)
            return transformation.update(grads, state, params, **extra)


def as_optimizer(optimizer: Optimizer) -> AbstractOptimizer:
    """An optimizer of this library, or an optax transformation, as the former."""
    if isinstance(optimizer, AbstractOptimizer):
        return optimizer
    if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
        raise ValueError(
            "`optimizer` must be one of this library, or an optax transformation, say "
            f"`optax.adam(1e-3)`; got {optimizer!r:.80}."
        )
    return _Transformation(optimizer)


def tree(seed: int = 1) -> dict[str, Array | None]:
    """The parameters that properties are tried on."""
    keys = jr.split(jr.key(seed), len(SHAPES))
    drawn = {
        name: jr.normal(k, shape, jnp.float32)
        for k, (name, shape) in zip(keys, SHAPES.items(), strict=True)
    }
    return drawn | {"none": None}


@eqx.filter_jit
def run(
    optimizer: AbstractOptimizer, params: PyTree[Array], grads: PyTree[Array]
) -> tuple[PyTree[Array], PyTree]:
    """The updates at each of a sequence of gradients, and the last state."""

    def body(state: PyTree, g: PyTree[Array]) -> tuple[PyTree, PyTree[Array]]:
        updates, state = optimizer.update(g, state, params, **linear_loss(g, params))
        a, b = jtu.tree_structure(updates), jtu.tree_structure(params)
        assert a == b, f"KeepsStructure: updates change structure, from {b} to {a}"
        return state, updates

    state = optimizer.init(params)
    arrays, rest = eqx.partition(state, eqx.is_array)
    step = lambda a, g: _arrays_first(body(eqx.combine(a, rest), g))
    state, updates = jax.lax.scan(step, arrays, grads)
    return updates, eqx.combine(state, rest)


def _arrays_first(result: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
    return eqx.filter(result[0], eqx.is_array), result[1]


class AbstractProperty(eqx.Module):
    """A property of an optimizer; an `AssertionError` says what broke it."""

    @abc.abstractmethod
    def __call__(self, optimizer: AbstractOptimizer) -> None:
        """Tests the property on drawn gradients.

        **Raises:** `AssertionError` if it does not hold.
        """


# To explain a failure takes longer than to find it, and its message says as much.
PHASES = tuple(phase for phase in Phase if phase is not Phase.explain)


def for_gradients(
    check: Callable[[Gradients], None], low: int = -20, high: int = 15, steps: int = STEPS
) -> None:
    @settings(max_examples=25, deadline=None, phases=PHASES)
    @given(gradient_sequences(low, high, steps=steps))
    def test(gradients: Gradients) -> None:
        check(gradients)

    test()


# What is only traced is cheap, and tried on everything; each of the others compiles.
TRACED = [(structure, dtype) for structure in STRUCTURES for dtype in DTYPES]
_COMPILED = [*((structure, "float32") for structure in STRUCTURES), ("layer", "bfloat16")]


def for_trees(
    check: Callable[[Parameters, Gradients], None],
    low: int = -20,
    high: int = 15,
    steps: int = STEPS,
) -> None:
    """As `for_gradients`, on each of a few structures and dtypes.

    One after the other: a few examples drawn from all of them would leave some out.
    """
    for structure, dtype in _COMPILED:
        recipes = parameter_recipes((structure,), (dtype,))

        @settings(max_examples=10, deadline=None, phases=PHASES)
        @given(recipes, gradient_sequences(low, high, steps=steps))
        def test(parameters: Parameters, gradients: Gradients) -> None:
            check(parameters, gradients)

        test()


def rounding(optimizer: AbstractOptimizer, params: PyTree[Array]) -> float:
    """By how much of the largest number two updates may differ and be equal.

    Where the state has 16 bits, what differs by one rounding before it is stored differs by
    one of those after.
    """
    state = jtu.tree_leaves(eqx.filter_eval_shape(optimizer.init, params))
    floats = [
        x.dtype for x in state if jnp.issubdtype(getattr(x, "dtype", int), jnp.inexact)
    ]
    return max([1e-4, *(8 * float(jnp.finfo(dtype).eps) for dtype in floats)])


def close(name: str, ours: PyTree, theirs: PyTree, tolerance: float) -> None:
    """Equal to rounding, relative to the largest number of each leaf."""
    pairs = zip(jtu.tree_leaves_with_path(ours), jtu.tree_leaves(theirs), strict=True)
    for (path, a), b in pairs:
        if not eqx.is_array(a):
            continue
        a, b = _numbers(a), _numbers(b)
        size = np.abs(b[np.isfinite(b)]).max(initial=0)
        same = np.isclose(a, b, rtol=tolerance, atol=tolerance * size, equal_nan=True)
        where = jtu.keystr(path)
        assert np.all(same), (
            f"{name}: {where} is {a[~same][0]:.6g} and not {b[~same][0]:.6g}"
        )


def _numbers(x: Array) -> np.ndarray:
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jr.key_data(x) if is_key else x, np.float64)
