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
    n = len(whole.targets)
    numbers = {m for a in arms for m in (a.training, a.validation) if m}
    if any(largest % m for m in numbers) or largest >= n:
        raise ValueError(
            f"Numbers of samples must divide the largest, {largest}, and leave some of "
            f"the {n} for testing; got {sorted(numbers)}."
        )
    order_key, noise_key, label_key = jr.split(jr.key(seed), 3)
    order = np.asarray(jr.permutation(order_key, n))
    whole = jtu.tree_map(lambda x: x[order], whole)
    chance = np.asarray(jr.uniform(noise_key, (largest,)))
    other = np.asarray(jr.randint(label_key, (largest,), 0, dataset.classes, jnp.int32))
    test = Examples(
        jnp.asarray(whole.inputs[largest:]), jnp.asarray(whole.targets[largest:])
    )

    def task(arm: Arm) -> Classification:
        noisy = np.where(
            chance < arm.noise, other, whole.targets[:largest].astype(np.int32)
        )

        def part(low: int, number: int) -> Examples:
            index = np.tile(np.arange(low, low + number), largest // number)
            return Examples(jnp.asarray(whole.inputs[index]), jnp.asarray(noisy[index]))

        train = part(0, arm.training)
        valid = part(arm.training, arm.validation) if arm.validation else train
        names = [split.value for split in Split]
        splits = dict(zip(names, (train, valid, test, test), strict=True))
        data = Dataset(splits, dataset.classes, dataset.scale)
        return Classification(data, MLP(hidden), batch_size)

    return [task(arm) for arm in arms]
