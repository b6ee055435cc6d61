"""Hypothesis strategies for spectra, matrices, parameter trees and gradients."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from jaxtyping import Array, Float, PyTree


_SEEDS = st.integers(0, 2**31 - 1)

# Few and fixed, so that examples share compiled programs: a scalar, a matrix and a vector
# beside an empty array and a `None`, many axes, and arrays all of whose entries tie.
STRUCTURES: dict[str, PyTree] = {
    "scalar": {"s": ()},
    "layer": {"w": (3, 2), "b": (2,), "empty": (0, 3), "none": None},
    "many axes": [(2, 1, 3, 2)],
    "ties": ((4,), (4,)),
}


def spectra(
    size: int = 3, *, low: float = 1e-3, high: float = 1e3
) -> SearchStrategy[np.ndarray]:
    """Positive eigenvalues, increasing, log-uniform between `low` and `high`."""

    def draw(exponents: list[float]) -> np.ndarray:
        share = np.sort(np.array(exponents))
        return low * (high / low) ** share

    exponents = st.floats(0, 1, allow_nan=False)
    return st.lists(exponents, min_size=size, max_size=size).map(draw)


def _rotation(seed: int, size: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


def spd_matrices(
    size: int = 3, *, low: float = 1e-3, high: float = 1e3
) -> SearchStrategy[np.ndarray]:
    """Symmetric positive definite matrices, with eigenvalues as from `spectra`."""

    def draw(seed: int, values: np.ndarray) -> np.ndarray:
        q = _rotation(seed, size)
        return (q * values) @ q.T

    return st.builds(draw, _SEEDS, spectra(size, low=low, high=high))


def symmetric_matrices(
    size: int = 3, *, low: float = -1.0, high: float = 1.0
) -> SearchStrategy[np.ndarray]:
    """Symmetric matrices whose eigenvalues lie between `low` and `high`."""

    def draw(seed: int, shares: list[float]) -> np.ndarray:
        q = _rotation(seed, size)
        return (q * (low + (high - low) * np.array(shares))) @ q.T

    shares = st.lists(st.floats(0, 1), min_size=size, max_size=size)
    return st.builds(draw, _SEEDS, shares)


def disturbed_matrices(
    size: int = 4, *, low: float = -1.0, high: float = 1.0, bound: float = 2.0
) -> SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """`(d, P)`: a diagonal disturbance $0 < d_i \\le$ `bound`, and a symmetric P that
    commutes with it.

    Both are constant on two blocks, of half the coordinates each.
    """
    half = size // 2

    def draw(
        d: list[float], first: np.ndarray, second: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        matrix = np.zeros((size, size))
        matrix[:half, :half], matrix[half:, half:] = first, second
        return np.repeat(d, [half, size - half]), matrix

    factors = st.lists(st.floats(1e-3, bound), min_size=2, max_size=2)
    blocks = (symmetric_matrices(n, low=low, high=high) for n in (half, size - half))
    return st.builds(draw, factors, *blocks)


def _is_shape(x: object) -> bool:
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)


def parameter_trees(
    structures: tuple[str, ...] = tuple(STRUCTURES),
    dtypes: tuple[str, ...] = ("float32", "bfloat16"),
) -> SearchStrategy[PyTree[Array]]:
    """Parameter trees: a scalar, a layer with an empty array and a `None`, many axes, ties.

    Their structures and shapes are a handful of fixed ones, so that examples share
    compiled programs; values and dtypes are drawn.
    """

    def draw(structure: str, dtype: str, seed: int, scale: int) -> PyTree[Array]:
        rng = np.random.default_rng(seed)

        def leaf(shape: tuple[int, ...]) -> Array:
            values = np.ones(shape) if structure == "ties" else rng.standard_normal(shape)
            return jnp.asarray(10.0**scale * values, dtype)

        return jtu.tree_map(leaf, STRUCTURES[structure], is_leaf=_is_shape)

    return st.builds(
        draw,
        st.sampled_from(structures),
        st.sampled_from(dtypes),
        _SEEDS,
        st.integers(-3, 3),
    )


@dataclass(frozen=True)
class Gradients:
    """A recipe for a sequence of gradients, that prints and shrinks well.

    **Attributes:**

    - `seed`: of the values, which are normal.
    - `exponent`: gradients are multiplied by 10 to this power.
    - `spike`: the step at which they are a thousand times larger, or -1.
    - `zeros`: whether every second step has a zero gradient.
    """

    seed: int = 0
    exponent: int = 0
    spike: int = -1
    zeros: bool = False

    def build(self, params: PyTree[Array], steps: int) -> PyTree[Float[Array, "steps ..."]]:
        """The gradients for `params`, on a leading axis."""
        rng = np.random.default_rng(self.seed)
        scale = np.full(steps, 10.0**self.exponent)
        scale[1::2] *= not self.zeros
        if 0 <= self.spike < steps:
            scale[self.spike] *= 1e3

        def leaf(p: Array) -> Array:
            values = rng.standard_normal((steps, *p.shape))
            return jnp.asarray(scale.reshape(-1, *[1] * p.ndim) * values, p.dtype)

        leaves, structure = jax.tree.flatten(params)
        return structure.unflatten([leaf(p) for p in leaves])


def gradient_sequences(low: int = -20, high: int = 15) -> SearchStrategy[Gradients]:
    """Recipes for gradients: zeros, spikes, and scales from 10^`low` to 10^`high`.

    Examples shrink towards plain normal gradients of scale 1.
    """
    return st.builds(
        Gradients,
        _SEEDS,
        st.integers(low, high),
        st.sampled_from((-1, 0, 2)),
        st.booleans(),
    )
