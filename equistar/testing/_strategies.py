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
# beside an empty array and a `None`, many axes, and leaves of one shape whose axes and
# entries tie.
DTYPES = ("float32", "bfloat16")
STRUCTURES: dict[str, PyTree] = {
    "scalar": {"s": ()},
    "layer": {"w": (3, 2), "b": (2,), "empty": (0, 3), "none": None},
    "many axes": [(2, 1, 3, 2)],
    "ties": ((4, 4), (4, 4)),
}


def spectra(
    size: int = 3, *, low: float = 1e-3, high: float = 1e3
) -> SearchStrategy[np.ndarray]:
    """Positive eigenvalues, increasing, log-uniform between `low` and `high`.

    **Arguments:**

    - `size`: how many.
    - `low`, `high`: the bounds.

    **Returns:**

    A strategy for arrays of shape (size,).
    """

    def draw(exponents: list[float]) -> np.ndarray:
        share = np.sort(np.array(exponents))
        return low * (high / low) ** share

    exponents = st.floats(0, 1, allow_nan=False)
    return st.lists(exponents, min_size=size, max_size=size).map(draw)


def _rotation(seed: int, size: int) -> np.ndarray:
    # Examples shrink to diagonal matrices.
    if seed == 0:
        return np.eye(size)
    rng = np.random.default_rng(seed)
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


# Symmetric to the last bit.
def _rotated(values: np.ndarray, seed: int) -> np.ndarray:
    q = _rotation(seed, len(values))
    matrix = (q * values) @ q.T
    return (matrix + matrix.T) / 2


def spd_matrices(
    size: int = 3, *, low: float = 1e-3, high: float = 1e3
) -> SearchStrategy[np.ndarray]:
    """Symmetric positive definite matrices.

    **Arguments:** as for [`equistar.testing.spectra`][], of the eigenvalues.

    **Returns:**

    A strategy for arrays of shape (size, size).
    """
    return st.builds(_rotated, spectra(size, low=low, high=high), _SEEDS)


def symmetric_matrices(
    size: int = 3, *, low: float = -1.0, high: float = 1.0
) -> SearchStrategy[np.ndarray]:
    """Symmetric matrices whose eigenvalues lie between `low` and `high`.

    **Arguments:**

    - `size`: rows and columns.
    - `low`, `high`: the bounds, of any sign.

    **Returns:**

    A strategy for arrays of shape (size, size).
    """

    shares = st.lists(st.floats(0, 1), min_size=size, max_size=size)
    values = shares.map(lambda shares: low + (high - low) * np.array(shares))
    return st.builds(_rotated, values, _SEEDS)


def disturbed_matrices(
    size: int = 4, *, low: float = -1.0, high: float = 1.0, bound: float = 2.0
) -> SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """`(d, P)`: a diagonal disturbance $0 < d_i \\le$ `bound`, and a symmetric P that
    commutes with it.

    Each has two blocks, of half the coordinates, within which $d$ is constant.

    **Arguments:**

    - `size`: the number of coordinates.
    - `low`, `high`: the bounds of P's eigenvalues.
    - `bound`: the largest $d_i$.

    **Returns:**

    A strategy for pairs of arrays of shapes (size,) and (size, size).
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


@dataclass(frozen=True)
class Parameters:
    """A recipe for a tree of parameters, which prints and shrinks well.

    **Attributes:**

    - `structure`: "scalar", "layer" (with an empty array and a `None`), "many axes" or
        "ties" (two square matrices all of whose numbers are equal).
    - `dtype`: of every array.
    - `seed`: of the values, which are normal but for ties.
    - `exponent`: values are multiplied by 10 to this power.
    """

    structure: str = "layer"
    dtype: str = "float32"
    seed: int = 0
    exponent: int = 0

    def build(self) -> PyTree[Array]:
        """The tree."""
        rng = np.random.default_rng(self.seed)
        tied = self.structure == "ties"

        def leaf(shape: tuple[int, ...]) -> Array:
            values = np.ones(shape) if tied else rng.standard_normal(shape)
            return jnp.asarray(10.0**self.exponent * values, self.dtype)

        return jtu.tree_map(leaf, STRUCTURES[self.structure], is_leaf=_is_shape)


def parameter_recipes(
    structures: tuple[str, ...] = tuple(STRUCTURES), dtypes: tuple[str, ...] = DTYPES
) -> SearchStrategy[Parameters]:
    """Recipes for parameter trees, of values of scales from 1e-3 to 1e3."""
    return st.builds(
        Parameters,
        structure=st.sampled_from(structures),
        dtype=st.sampled_from(dtypes),
        seed=_SEEDS,
        exponent=st.integers(-3, 3),
    )


def parameter_trees(
    structures: tuple[str, ...] = tuple(STRUCTURES), dtypes: tuple[str, ...] = DTYPES
) -> SearchStrategy[PyTree[Array]]:
    """Parameter trees: a scalar, a layer with an empty array and a `None`, many axes, ties.

    Structures and shapes are a few fixed ones, so that examples share compiled programs;
    values and dtypes are drawn.

    **Arguments:**

    - `structures`: those to draw from, as for [`equistar.testing.Parameters`][].
    - `dtypes`: those to draw from.

    **Returns:**

    A strategy for pytrees of arrays.
    """
    return parameter_recipes(structures, dtypes).map(Parameters.build)


@dataclass(frozen=True)
class Gradients:
    """A recipe for a sequence of gradients, which prints and shrinks well.

    **Attributes:**

    - `seed`: of the values, which are normal.
    - `exponent`: gradients are multiplied by 10 to this power.
    - `spike`: the step at which they are a thousand times larger, or -1.
    - `zeros`: whether every second step has a zero gradient.
    - `nan`: the leaf, among those that are not empty, whose gradient has a NaN at the first
        step, or -1.
    """

    seed: int = 0
    exponent: int = 0
    spike: int = -1
    zeros: bool = False
    nan: int = -1

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
        grads = [leaf(p) for p in leaves]
        filled = [i for i, p in enumerate(leaves) if p.size > 0]
        if 0 <= self.nan < len(filled):
            broken = filled[self.nan]
            first = (0,) * grads[broken].ndim
            grads[broken] = grads[broken].at[first].set(jnp.nan)
        return structure.unflatten(grads)


def gradient_sequences(
    low: int = -20, high: int = 15, *, nan_leaves: int = 0, steps: int = 4
) -> SearchStrategy[Gradients]:
    """Recipes for gradients: zeros, spikes, and scales from 10^`low` to 10^`high`.

    Examples shrink towards plain normal gradients of scale 1.

    **Arguments:**

    - `low`, `high`: decimal exponents of the scale.
    - `nan_leaves`: if positive, some examples have a NaN in one of this many first leaves
        that are not empty.
    - `steps`: for how many steps they are meant: a spike is at the first, the third or the
        last of them.

    **Returns:**

    A strategy for [`equistar.testing.Gradients`][].
    """
    return st.builds(
        Gradients,
        seed=_SEEDS,
        exponent=st.integers(low, high),
        spike=st.sampled_from((-1, 0, 2, steps - 1)),
        zeros=st.booleans(),
        nan=st.sampled_from((-1, *range(nan_leaves))),
    )
