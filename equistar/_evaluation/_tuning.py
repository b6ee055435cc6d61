"""Sweeps over the settings of a baseline, in one vmapped program."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._keys import key_data_of
from .._optimizers import AbstractOptimizer
from ..tasks import AbstractTask
from ._baselines import AbstractBaseline, Draws
from ._fingerprint import fingerprint
from ._progress import AbstractProgress
from ._statistics import mean_losses
from ._store import AbstractStore, digest, Entry
from ._training import bytes_of_one, HeldOutLoss, Programs, train_many


# Gradient, update, and the buffers of a step, beside parameters and state.
_COPIES = 4
# Bytes for a sweep where the device does not say how many it has.
_DEFAULT_BYTES = 2**30


class Sweep(eqx.Module):
    """A sweep: every draw's settings, and its mean training loss for each seed."""

    settings: dict[str, np.ndarray]
    means: Float[np.ndarray, "draws seeds"]

    @property
    def chosen(self) -> int:
        """The draw of the lowest mean loss, of those that are finite on the most seeds."""
        finite = np.ma.masked_invalid(self.means)
        mean = np.ma.filled(finite.mean(axis=1), np.inf)
        return int(np.lexsort((mean, -finite.count(axis=1)))[0])

    def best(self) -> dict[str, float]:
        """The settings of the chosen draw."""
        return {name: float(x[self.chosen]) for name, x in self.settings.items()}


def _number(baseline: AbstractBaseline, draws: Draws) -> int:
    numbers = {jnp.shape(x)[0] if jnp.ndim(x) == 1 else 0 for x in draws.values()}
    if len(numbers) != 1 or 0 in numbers:
        shapes = {name: jnp.shape(x) for name, x in draws.items()}
        raise ValueError(
            f"`draws` of {type(baseline).__name__} must return a vector for each setting, "
            f"all equally long and none empty; got shapes {shapes}."
        )
    return numbers.pop()


def tune(
    baseline: AbstractBaseline,
    task: AbstractTask,
    *,
    steps: int,
    segment: int,
    keys: Array,
    key: PRNGKeyArray,
    programs: Programs,
    progress: AbstractProgress,
    label: str,
    cache: AbstractStore,
    about: dict[str, Any],
    memory: int | None = None,
) -> Sweep:
    """Trains with every draw of a baseline, or reads from the cache what that gave.

    **Arguments:**

    - `baseline`: what is tuned.
    - `task`, `steps`, `segment`, `keys`: the training, as for `train_many`.
    - `key`: of the draws.
    - `programs`, `progress`, `label`: as for `train_many`.
    - `cache`: where sweeps are kept.
    - `about`: what else the outcome depends on: name of the task, versions.
    - `memory`: bytes to use; by default half of the device's.
    """
    draws = baseline.draws(key=key)
    number = _number(baseline, draws)
    settings = {
        **about,
        "task_contents": fingerprint(task),
        "steps": steps,
        "keys": key_data_of(keys),
        "baseline": baseline.name,
        "baseline_contents": fingerprint(baseline),
        "draws": fingerprint(draws),
    }
    name = f"{label} {digest(settings)[:16]}"
    entry = cache.load(name)
    if entry is not None:
        progress.say(f"{label}: the sweep of {number} settings is there from before.")
        return _from_entry(entry)
    progress.say(f"{label}: {baseline.budget()}, all {number} at {steps} steps ...")
    one = baseline.optimizer({n: x[0] for n, x in draws.items()}, jnp.asarray(1.0 * steps))
    each = _COPIES * bytes_of_one(task, one) * len(keys)
    means = []
    for index in _chunks(number, each, memory or _device_bytes()):
        curves = train_many(
            task,
            optimizers_of(baseline, {n: x[index] for n, x in draws.items()}, steps),
            steps=steps,
            segment=segment,
            keys=keys,
            # The sweep looks at nothing but the training loss.
            held_out=HeldOutLoss(batches=1),
            programs=programs,
            progress=progress,
            label=f"{label} {index[-1] + 1}/{number}",
        )
        means += [mean_losses(x) for x in curves.losses]
    tried = {n: np.asarray(x) for n, x in draws.items()}
    sweep = Sweep(tried, np.stack(means[:number]))
    cache.save(name, Entry({"settings": settings}, _arrays(sweep)))
    return sweep


def _chunks(number: int, each: int, memory: int) -> list[np.ndarray]:
    """The draws that fit into the memory at once, of `each` bytes each."""
    chunks = min(number, max(1, -(-number * each // memory)))
    size = -(-number // chunks)
    # The last chunk is filled up with its last draw: one program serves all.
    indices = (np.arange(first, first + size) for first in range(0, number, size))
    return [np.minimum(index, number - 1) for index in indices]


@eqx.filter_jit
def optimizers_of(
    baseline: AbstractBaseline, draws: Draws, steps: int
) -> AbstractOptimizer:
    """The optimizers of several draws, as one whose arrays have a leading axis."""
    dtype = jnp.zeros(()).dtype
    make = lambda settings: baseline.optimizer(settings, jnp.asarray(1.0 * steps, dtype))
    return eqx.filter_vmap(make)(draws)


def as_batch(optimizer: AbstractOptimizer) -> AbstractOptimizer:
    """An optimizer as a batch of one."""
    return jtu.tree_map(lambda x: x[None] if eqx.is_array(x) else x, optimizer)


def _arrays(sweep: Sweep) -> dict[str, np.ndarray]:
    return {**{f"setting {n}": x for n, x in sweep.settings.items()}, "means": sweep.means}


def _from_entry(entry: Entry) -> Sweep:
    prefix = "setting "
    settings = {
        n.removeprefix(prefix): x for n, x in entry.arrays.items() if n.startswith(prefix)
    }
    return Sweep(settings, entry.arrays["means"])


def _device_bytes() -> int:
    found = jax.local_devices()[0].memory_stats() or {}
    return found.get("bytes_limit", 2 * _DEFAULT_BYTES) // 2
