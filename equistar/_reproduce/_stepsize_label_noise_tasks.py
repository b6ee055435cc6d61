"""Samples with noisy labels, shared out between training and validation."""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np

from ..tasks import Classification, Dataset, Examples, MLP, Split


class Arm(NamedTuple):
    """What an optimizer is meta-trained on.

    **Attributes:**

    - `training`: samples that networks are trained on.
    - `validation`: other samples, which the meta-loss is on; with none it is on the
        samples of the training.
    - `noise`: share of the labels of both that is drawn again.
    """

    training: int
    validation: int
    noise: float

    def name(self) -> str:
        if self.validation:
            return f"train-by-validation, {self.training} + {self.validation}"
        return f"train-by-train, {self.training}"


def draw_tasks(
    arms: Sequence[Arm],
    dataset: Dataset,
    hidden: tuple[int, ...],
    batch_size: int,
    seed: int,
) -> list[Classification]:
    """One task for each arm, from one draw of the samples and of the noise.

    The splits of `dataset` are put together and drawn anew: as many samples as the largest
    arm needs, and all others for testing. Numbers must divide the largest, as samples are
    repeated up to it, so that one program serves all arms.
    """
    largest = max(a.training + a.validation for a in arms)
    whole = jtu.tree_map(lambda *xs: np.concatenate(xs), *dataset.splits.values())
    _check_numbers(arms, largest, len(whole.targets))
    order_key, noise_key, label_key = jr.split(jr.key(seed), 3)
    order = np.asarray(jr.permutation(order_key, len(whole.targets)))
    whole = jtu.tree_map(lambda x: x[order], whole)
    chance = np.asarray(jr.uniform(noise_key, (largest,)))
    other = np.asarray(jr.randint(label_key, (largest,), 0, dataset.classes, jnp.int32))
    test = Examples(*(jnp.asarray(x[largest:]) for x in (whole.inputs, whole.targets)))
    inputs, targets = whole.inputs[:largest], whole.targets[:largest].astype(np.int32)

    def task(arm: Arm) -> Classification:
        noisy = np.where(chance < arm.noise, other, targets)
        data = Dataset(_splits(arm, inputs, noisy, test), dataset.classes, dataset.scale)
        return Classification(data, MLP(hidden), batch_size)

    return [task(arm) for arm in arms]


def _check_numbers(arms: Sequence[Arm], largest: int, available: int) -> None:
    numbers = {m for a in arms for m in (a.training, a.validation) if m}
    if any(largest % m for m in numbers) or largest >= available:
        raise ValueError(
            f"Numbers of samples must divide the largest, {largest}, and leave some of "
            f"the {available} for testing; got {sorted(numbers)}."
        )


def _splits(
    arm: Arm, inputs: np.ndarray, targets: np.ndarray, test: Examples
) -> dict[str, Examples]:
    """An arm's samples, each repeated up to the number of `targets`."""

    def part(low: int, number: int) -> Examples:
        index = np.tile(np.arange(low, low + number), len(targets) // number)
        return Examples(jnp.asarray(inputs[index]), jnp.asarray(targets[index]))

    train = part(0, arm.training)
    valid = part(arm.training, arm.validation) if arm.validation else train
    names = [split.value for split in Split]
    return dict(zip(names, (train, valid, test, test), strict=True))
