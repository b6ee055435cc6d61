"""Training curves of several optimizers of one type over several seeds: one program.

Time is cut into segments of equal length, so that one program, compiled once, serves
every horizon, tells how far it is, and gives a held-out loss after each segment.
"""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._inner_training import train_init, train_step, TrainState
from .._optimizers import AbstractOptimizer
from ..tasks import AbstractTask, Split
from ._progress import AbstractProgress


class HeldOutLoss(eqx.Module):
    """The mean loss on fixed minibatches of a split, the same at every point."""

    split: Split = eqx.field(default=Split.TEST, static=True)
    batches: int = eqx.field(default=4, static=True)

    def __call__(self, task: AbstractTask, params: PyTree[Array]) -> Float[Array, ""]:
        keys = jr.split(jr.key(0), self.batches)
        # One after the other: many seeds at once fill the memory as it is.
        losses = jax.lax.map(lambda k: task.loss(params, key=k, split=self.split), keys)
        return jnp.mean(losses)


class Curves(eqx.Module):
    """What a program measured, for each optimizer (draw) and seed.

    **Attributes:**

    - `losses`: the training loss at each step, before its update.
    - `held_out`: the held-out loss after each segment.
    - `seconds_per_step`: of one step of all draws and seeds together, with its share of
        the held-out losses, compilation apart; the median over segments.
    - `memory`: bytes of the program: scratch, arguments and results; -1 if not known.
    """

    losses: Float[np.ndarray, "draws seeds steps"]
    held_out: Float[np.ndarray, "draws seeds points"]
    seconds_per_step: float
    memory: int


class Programs(eqx.Module):
    """The programs compiled so far, one for each task and type of optimizer."""

    compiled: dict[Any, Any] = eqx.field(default_factory=dict)

    def __call__(self, *arguments: Any) -> Any:
        """The compiled segment for arguments of such types and shapes."""
        arrays, rest = eqx.partition(arguments, eqx.is_array)
        shapes = [(x.shape, str(x.dtype)) for x in jtu.tree_leaves(arrays)]
        leaves, structure = jtu.tree_flatten(rest)
        key = (jtu.tree_structure(arrays), tuple(shapes), tuple(leaves), structure)
        if key not in self.compiled:
            lowered = _segment.lower(*arguments)  # pyright: ignore
            self.compiled[key] = lowered.compile()
        return self.compiled[key]


def segments(steps: int) -> int:
    """Into how many equal segments so many steps are cut: a divisor, at most 10."""
    return max(n for n in range(1, 11) if steps % n == 0)


def train_many(
    task: AbstractTask,
    optimizers: AbstractOptimizer,
    *,
    steps: int,
    segment: int,
    keys: Array,
    held_out: HeldOutLoss,
    programs: Programs,
    progress: AbstractProgress,
    label: str,
) -> Curves:
    """Trains a fresh network for each optimizer and each key.

    **Arguments:**

    - `task`: what is trained.
    - `optimizers`: whose arrays have a leading axis of draws.
    - `steps`: updates, a multiple of `segment`.
    - `segment`: updates between two held-out losses.
    - `keys`: one for each seed. All optimizers start from the same parameters and see the
        same minibatches, and a longer training begins as a shorter one.
    - `held_out`: which held-out loss.
    - `programs`: those compiled so far.
    - `progress`, `label`: who is told, and of what.
    """
    states, data_keys = _begin(task, optimizers, keys)
    start = jnp.zeros((), jnp.int32)
    rest = (start, data_keys, segment, held_out)
    program = programs(task, optimizers, states, *rest)
    losses, points, seconds = [], [], []
    for done in range(0, steps, segment):
        started = time.perf_counter()
        rest = (jnp.asarray(done, jnp.int32), data_keys, segment, held_out)
        states, loss, point = program(task, optimizers, states, *rest)
        losses.append(np.asarray(loss))
        points.append(np.asarray(point))
        seconds.append((time.perf_counter() - started) / segment)
        progress.advance(label, done + segment, steps)
    return Curves(
        np.concatenate(losses, -1),
        np.stack(points, -1),
        float(np.median(seconds)),
        _memory(program),
    )


def bytes_of_one(task: AbstractTask, optimizer: AbstractOptimizer) -> int:
    """Of the parameters and the state of one network in training."""
    make = lambda: train_init(task, optimizer, key=jr.key(0))
    return sum(
        x.size * x.dtype.itemsize for x in jtu.tree_leaves(eqx.filter_eval_shape(make))
    )


@eqx.filter_jit
def _begin(
    task: AbstractTask, optimizers: AbstractOptimizer, keys: Array
) -> tuple[TrainState, Array]:
    both = jax.vmap(jr.split)(keys)
    init = lambda optimizer, key: train_init(task, optimizer, key=key)
    over_seeds = eqx.filter_vmap(init, in_axes=(None, 0))
    # By its arrays only: an optimizer's other leaves have no axis of draws.
    over_draws = eqx.filter_vmap(
        over_seeds, in_axes=(eqx.if_array(0), None), axis_size=_draws(optimizers)
    )
    states = over_draws(optimizers, both[:, 0])
    return states, both[:, 1]


@eqx.filter_jit
def _segment(
    task: AbstractTask,
    optimizers: AbstractOptimizer,
    states: TrainState,
    start: Int[Array, ""],
    keys: Array,
    steps: int,
    held_out: HeldOutLoss,
) -> tuple[TrainState, Float[Array, "draws seeds steps"], Float[Array, "draws seeds"]]:
    def one(
        optimizer: AbstractOptimizer, state: TrainState, key: PRNGKeyArray
    ) -> tuple[TrainState, Array, Array]:
        def body(state: TrainState, n: Array) -> tuple[TrainState, Array]:
            return train_step(task, optimizer, state, key=jr.fold_in(key, n))

        state, losses = jax.lax.scan(
            body, state, start + jnp.arange(steps, dtype=jnp.int32)
        )
        return state, losses, held_out(task, state.params)

    over_seeds = eqx.filter_vmap(one, in_axes=(None, 0, 0))
    over_draws = eqx.filter_vmap(
        over_seeds, in_axes=(eqx.if_array(0), 0, None), axis_size=_draws(optimizers)
    )
    return over_draws(optimizers, states, keys)


def _draws(optimizers: AbstractOptimizer) -> int:
    """How many there are; one that holds no arrays is a batch of one."""
    arrays = jtu.tree_leaves(eqx.filter(optimizers, eqx.is_array))
    return len(arrays[0]) if arrays else 1


def _memory(program: Any) -> int:
    found = program.compiled.memory_analysis()
    if found is None:
        return -1
    parts = "temp_size_in_bytes", "argument_size_in_bytes", "output_size_in_bytes"
    return sum(int(getattr(found, part)) for part in parts)
