"""Learned optimizers meta-trained and tried out, one on each task, all at once."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._estimators import PES
from .._inner_training import HeldOut, InnerTraining, train_init, train_step
from .._keys import apart
from .._optimizers import AbstractOptimizer, HyperparamController
from ..tasks import Classification, Split


def _fresh(scales: tuple[float, float], key: PRNGKeyArray) -> HyperparamController:
    nominal, magnitude = scales
    fresh = HyperparamController(key=key, nominal_scale=nominal, magnitude_scale=magnitude)
    head = lambda o: o.nominal.magnitude.head.weight  # pyright: ignore
    return eqx.tree_at(head, fresh, replace_fn=jnp.zeros_like)


@eqx.filter_jit
def meta_train_each(
    tasks: Classification,
    estimator: PES,
    outer: optax.GradientTransformation,
    scales: tuple[float, float],
    steps: int,
    keys: Array,
) -> tuple[AbstractOptimizer, Float[Array, "runs steps"]]:
    """One learned optimizer for each task, and its meta-losses on the way."""

    def one(task: Classification, key: PRNGKeyArray) -> tuple[AbstractOptimizer, Array]:
        init_key, particle_key, run_key = jr.split(key, 3)
        fresh = _fresh(scales, init_key)
        arrays, rest = eqx.partition(fresh, eqx.is_inexact_array)
        unroll = InnerTraining(task, HeldOut(Split.INNER_VALID))

        def body(state: Any, n: Array) -> tuple[Any, Array]:
            arrays, outer_state, particles = state
            estimate, particles = estimator.estimate(
                unroll, eqx.combine(arrays, rest), particles, key=jr.fold_in(run_key, n)
            )
            with jax.numpy_dtype_promotion("standard"):
                updates, outer_state = outer.update(estimate.gradient, outer_state)
                arrays = optax.apply_updates(arrays, updates)
            return (arrays, outer_state, particles), estimate.meta_loss

        particles = estimator.init(unroll, fresh, key=particle_key)
        state = arrays, outer.init(arrays), particles
        (arrays, _, _), losses = jax.lax.scan(body, state, jnp.arange(steps))
        return eqx.combine(arrays, rest), losses

    return eqx.filter_vmap(one)(tasks, keys)


def evaluate(
    tasks: Classification, optimizers: AbstractOptimizer, steps: int, keys: Array
) -> tuple[np.ndarray, Float[Array, "runs 2 points"]]:
    """Accuracies on the training and the test data while a fresh network is trained."""
    every = max(1, steps // 40)
    points = steps // every
    return every * np.arange(points + 1), _curves(tasks, optimizers, every, points, keys)


@eqx.filter_jit
def _curves(
    tasks: Classification, optimizers: PyTree, every: int, points: int, keys: Array
) -> Float[Array, "runs 2 points"]:
    def accuracy(task: Classification, params: PyTree[Array], split: Split) -> Array:
        examples = task.dataset[split]
        logits = task.logits(params, examples.inputs)
        guess = jnp.argmax(logits, axis=-1).astype(examples.targets.dtype)
        return jnp.mean((guess == examples.targets).astype(jnp.float32))

    def one(task: Classification, optimizer: Any, key: PRNGKeyArray) -> Array:
        # Not the keys of the meta-training.
        init_key, run_key = jr.split(apart(key, "eval"))
        state = train_init(task, optimizer, key=init_key)

        def block(state: Any, n: Array) -> tuple[Any, Array]:
            at = [accuracy(task, state.params, s) for s in (Split.TRAIN, Split.TEST)]
            step = lambda s, k: (train_step(task, optimizer, s, key=k)[0], None)
            keys = jr.split(jr.fold_in(run_key, n), every)
            return jax.lax.scan(step, state, keys)[0], jnp.stack(at)

        return jax.lax.scan(block, state, jnp.arange(points + 1))[1].T

    return eqx.filter_vmap(one)(tasks, optimizers, keys)
