"""A matrix P meta-trained by ES beside a fixed nominal step, and what is seen of it."""

from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._estimators import FullES
from .._unrolls import AbstractUnroll
from ..analysis import LinearOptimizer, NoisyQuadratic


Recorded: TypeAlias = tuple[
    Float[Array, "*runs points"], Float[Array, "*runs points 2"], Int[Array, "*runs"]
]


class _BesideNominal(AbstractUnroll):
    """The model with a fixed nominal step, whose `theta` is P."""

    model: NoisyQuadratic
    alpha: Float[Array, ""]

    def init(self, theta: Float[Array, "n n"], *, key: PRNGKeyArray) -> Array:
        return self.model.init(LinearOptimizer(self.alpha, theta), key=key)

    def step(
        self, theta: Float[Array, "n n"], carry: Array, *, key: PRNGKeyArray
    ) -> tuple[Array, Float[Array, ""]]:
        return self.model.step(LinearOptimizer(self.alpha, theta), carry, key=key)

    def mean_loss(self, theta: Float[Array, "n n"], length: int) -> Float[Array, ""]:
        return self.model.mean_loss(LinearOptimizer(self.alpha, theta), length)

    def magnitudes(self, theta: Float[Array, "n n"]) -> Float[Array, "2"]:
        """Of the eigenvalues of a step."""
        return _magnitudes(self.model.transition(LinearOptimizer(self.alpha, theta)))


class _State(eqx.Module):
    """Of one meta-training; `needed` is -1 until P is near."""

    theta: Float[Array, "n n"]
    outer: PyTree[Array]
    estimator: PyTree[Array]
    needed: Int[Array, ""]


class MatrixTraining(eqx.Module):
    """Meta-training of P by ES, from zero.

    **Attributes:**

    - `near`: the expected meta-loss below which P is near the optimum.
    - `length`: steps of an episode.
    - `points`, `every`: how many points are recorded, and how many meta-steps apart.
    """

    estimator: FullES
    outer: optax.GradientTransformation
    near: Float[Array, ""]
    length: int = eqx.field(static=True)
    points: int = eqx.field(static=True)
    every: int = eqx.field(static=True)

    def __call__(self, unroll: _BesideNominal, key: PRNGKeyArray) -> Recorded:
        """Exact meta-losses and eigenvalue magnitudes on the way.

        Last the first meta-step at which the meta-loss is below `near`, or -1.
        """

        def point(state: _State, n: Int[Array, ""]) -> tuple[_State, tuple[Array, Array]]:
            loss = unroll.mean_loss(state.theta, self.length)
            seen = loss, unroll.magnitudes(state.theta)
            step = lambda s, k: (self._step(unroll, s, k, key), None)
            steps = n * self.every + jnp.arange(self.every)
            return jax.lax.scan(step, state, steps)[0], seen

        points = jnp.arange(self.points)
        state, seen = jax.lax.scan(point, self._init(unroll, key), points)
        return *seen, state.needed

    def _init(self, unroll: _BesideNominal, key: PRNGKeyArray) -> _State:
        matrix = jnp.zeros_like(unroll.model.hessian)
        particles = self.estimator.init(unroll, matrix, key=key)
        return _State(matrix, self.outer.init(matrix), particles, jnp.asarray(-1, int))

    def _step(
        self, unroll: _BesideNominal, state: _State, n: Int[Array, ""], key: PRNGKeyArray
    ) -> _State:
        loss = unroll.mean_loss(state.theta, self.length)
        needed = jnp.where((loss < self.near) & (state.needed < 0), n, state.needed)
        estimate, particles = self.estimator.estimate(
            unroll, state.theta, state.estimator, key=jr.fold_in(key, n)
        )
        with jax.numpy_dtype_promotion("standard"):
            updates, outer = self.outer.update(estimate.gradient, state.outer)
        theta = jtu.tree_map(jnp.add, state.theta, updates)
        return _State(theta, outer, particles, needed)


@eqx.filter_jit
def train_matrices(
    training: MatrixTraining,
    model: NoisyQuadratic,
    alphas: Float[Array, " alphas"],
    keys: Array,
) -> Recorded:
    """What is recorded beside each nominal step from each key, (alphas, keys, ...)."""
    run = lambda alpha, key: training(_BesideNominal(model, alpha), key)
    seeds = jax.vmap(run, in_axes=(None, 0))
    return jax.vmap(seeds, in_axes=(0, None))(alphas, keys)


# Of a 2x2 matrix, which lowers where a general eigenvalue problem does not.
def _magnitudes(matrix: Float[Array, "2 2"]) -> Float[Array, "2"]:
    half, det = jnp.trace(matrix) / 2, jnp.linalg.det(matrix)
    inside = half**2 - det
    root = jnp.sqrt(jnp.maximum(inside, 0))
    real = jnp.sort(jnp.abs(jnp.stack([half - root, half + root])))
    pair = jnp.sqrt(jnp.maximum(det, 0))
    return jnp.where(inside < 0, jnp.stack([pair, pair]), real)
