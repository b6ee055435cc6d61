"""What estimates of a meta-gradient are compared with, and the runs that make them."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._estimators import AbstractEstimator
from .._kinds import as_int, check_count, check_parts
from .._unrolls import AbstractUnroll


class AbstractReference(eqx.Module):
    """What the estimates are compared with."""

    @abc.abstractmethod
    def gradient(
        self, unroll: AbstractUnroll, theta: PyTree, steps: int, *, key: PRNGKeyArray
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """The gradient, ravelled, and the standard error of each of its numbers.

        **Arguments:**

        - `unroll`, `theta`: what to differentiate, and where.
        - `steps`: of the unroll in a run.
        - `key`: a PRNG key.
        """


class ExactGradient(AbstractReference):
    """A gradient that is known.

    **Attributes:**

    - `value`: the gradient, in the structure of `theta`.

    **Raises:**

    `ValueError`, when it is used, if its structure or shapes are not those of `theta`.
    """

    value: PyTree[Array]

    def gradient(
        self, unroll: AbstractUnroll, theta: PyTree, steps: int, *, key: PRNGKeyArray
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        known, asked = self.value, eqx.filter(theta, eqx.is_inexact_array)
        shapes = lambda tree: jtu.tree_map(jnp.shape, tree)
        if shapes(known) != shapes(asked):
            raise ValueError(
                "The exact gradient must have the structure of `theta`'s floating-point "
                f"arrays, with the shapes {shapes(asked)}; got {shapes(known)}."
            )
        flat = np.asarray(ravel_pytree(known)[0], np.float64)
        return flat, np.zeros_like(flat)


class LongRun(AbstractReference):
    """The mean of many runs of an estimator that is known to be unbiased.

    **Attributes:**

    - `estimator`: say [`equistar.FullES`][].
    - `runs`: how many, at least 2.

    **Raises:**

    `ValueError` if `estimator` is not an estimator, or `runs` is not a whole number of
    at least 2.
    """

    estimator: AbstractEstimator
    runs: int = eqx.field(default=1000, converter=as_int, static=True)

    def __check_init__(self):
        check_parts(self)
        # Fewer have no standard error.
        check_count(self.runs, "runs", least=2)

    def gradient(
        self, unroll: AbstractUnroll, theta: PyTree, steps: int, *, key: PRNGKeyArray
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        windows, skipped = windows_of(self.estimator, steps)
        keys = jr.split(key, self.runs)
        out = run_many(unroll, self.estimator, theta, keys, windows, skipped)
        samples = np.asarray(out, np.float64)
        return samples.mean(0), samples.std(0, ddof=1) / np.sqrt(self.runs)


def windows_of(estimator: AbstractEstimator, steps: int) -> tuple[int, int]:
    """How many windows make so many steps, and how many before them do not count."""
    return -(-steps // estimator.steps), -(-estimator.warm_up // estimator.steps)


# One run after the other, so that memory and time are those of one.
@eqx.filter_jit
def run_many(
    unroll: AbstractUnroll,
    estimator: AbstractEstimator,
    theta: PyTree,
    keys: Array,
    windows: int,
    skipped: int,
) -> Float[Array, "runs n"]:
    """The gradient that each run gives, ravelled: a run for each key."""

    def run(key: PRNGKeyArray) -> Float[Array, " n"]:
        init_key, run_key = jr.split(key)

        def body(state: PyTree[Array], n: Array) -> tuple[PyTree[Array], Array]:
            window_key = jr.fold_in(run_key, n)
            estimate, state = estimator.estimate(unroll, theta, state, key=window_key)
            return state, ravel_pytree(estimate.gradient)[0]

        state = estimator.init(unroll, theta, key=init_key)
        _, gradients = jax.lax.scan(body, state, jnp.arange(skipped + windows))
        return jnp.mean(gradients[skipped:], axis=0)

    return jax.lax.map(run, keys)
