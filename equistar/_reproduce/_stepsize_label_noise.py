"""A learned optimizer meta-trained on training or on validation data, with label noise."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import Array, Float

from .._estimators import PES
from .._optimizers import AbstractOptimizer
from .._unrolls import ConstantLength
from ..tasks import Classification, Dataset, digits, tfds_images
from ._base import AbstractExperiment, Claim
from ._stepsize_label_noise_claims import arms_of, claims
from ._stepsize_label_noise_runs import evaluate, meta_train_each
from ._stepsize_label_noise_tasks import Arm, draw_tasks


class LabelNoise(AbstractExperiment):
    """A learned optimizer fits noisy labels, unless meta-trained on validation data.

    Wang et al. 2021, section 5: train-by-train with as many samples as
    train-by-validation trains on, and with all that it has; and with all of the data and
    clean labels. Multi-layer perceptrons are trained by a learned per-element rate on
    Adam's and AggMo's directions, of 192 numbers, whose head starts at zero, so that all
    start as the nominal optimizer. The test set's labels are never redrawn. Numbers of
    samples must divide the largest. `load` gives the data, by seed: digits, or any other.
    """

    arms: tuple[Arm, ...] = (
        Arm(350, 0, 0.2),
        Arm(700, 0, 0.2),
        Arm(350, 350, 0.2),
        Arm(1400, 0, 0.0),
        Arm(700, 700, 0.0),
    )
    load: Callable[[int], Dataset] = eqx.field(default=digits, static=True)
    hidden: tuple[int, ...] = (32,)
    batch_size: int = 32
    nominal_scale: float = 1e-2
    magnitude_scale: float = 2.0
    length: int = 800
    window: int = 40
    pairs: int = 6
    sigma: float = 0.1
    learning_rate: float = 0.005
    meta_steps: int = 400
    test_steps: int = 1600
    seeds: int = 5

    def full(self) -> "LabelNoise":
        clean = tuple(a._replace(noise=0.0) for a in self.arms if a.noise > 0)
        size = {"hidden": (100, 20), "length": 1000, "pairs": 8, "test_steps": 4000}
        return dataclasses.replace(self, arms=self.arms + clean, meta_steps=2000, **size)

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        tasks = self._tasks()
        # The same draws in every arm: differences are within a seed.
        keys = jnp.tile(jr.split(jr.key(0), self.seeds), len(self.arms))
        say(f"{len(keys)} learned optimizers, {self.meta_steps} meta-steps each ...")
        optimizers, losses = self._meta_train(tasks, keys)
        say(f"{self.test_steps} steps of training with each ...")
        at, seen = evaluate(tasks, optimizers, self.test_steps, keys)
        shape = len(self.arms), self.seeds
        return {
            "training": np.array([a.training for a in self.arms]),
            "validation": np.array([a.validation for a in self.arms]),
            "noise": np.array([a.noise for a in self.arms]),
            "step": at,
            "horizon": np.array(self.length),
            "classes": np.array(tasks.dataset.classes),
            "accuracy": np.asarray(seen, np.float64).reshape(*shape, 2, -1),
            "meta_loss": np.asarray(losses, np.float64).reshape(*shape, -1),
        }

    def _tasks(self) -> Classification:
        """The tasks of all seeds for one arm after the other, stacked."""
        by_seed = [
            draw_tasks(self.arms, self.load(seed), self.hidden, self.batch_size, seed)
            for seed in range(self.seeds)
        ]
        tasks = [task for of_arm in zip(*by_seed, strict=True) for task in of_arm]
        return jtu.tree_map(lambda *xs: jnp.stack(xs), *tasks)

    def _meta_train(
        self, tasks: Classification, keys: Array
    ) -> tuple[AbstractOptimizer, Float[Array, "runs steps"]]:
        pes = PES(self.window, self.pairs, self.sigma, ConstantLength(self.length))
        decay = optax.cosine_decay_schedule(self.learning_rate, self.meta_steps)
        outer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(decay))
        scales = self.nominal_scale, self.magnitude_scale
        return meta_train_each(tasks, pes, outer, scales, self.meta_steps, keys)

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        return claims(data)

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        arms = arms_of(data)
        noises = sorted({a.noise for a in arms}, reverse=True)
        columns = figure.subplots(1, len(noises), sharey=True, squeeze=False)[0]
        for axes, noise in zip(columns, noises, strict=True):
            shown = [i for i, a in enumerate(arms) if a.noise == noise]
            for j, i in enumerate(shown):
                accuracy, name = data["accuracy"][i], arms[i].name()
                _draw_arm(axes, data["step"], accuracy, f"C{j}", name)
            axes.set_title(f"{noise:.0%} of the labels redrawn", fontsize=10)
            axes.set(xlabel="step of training", ylim=(0.6, 1.01))
            axes.legend(frameon=False, fontsize=8, loc="lower right")
        columns[0].set_ylabel("accuracy: training (dashed), test")


def _draw_arm(
    axes: Any,
    steps: np.ndarray,
    accuracy: Float[np.ndarray, "seeds 2 points"],
    colour: str,
    name: str,
) -> None:
    """Means over the seeds, and the standard deviation in a shade."""
    middle, spread = accuracy.mean(0), accuracy.std(0)
    for k, (style, label) in enumerate((("--", None), ("-", name))):
        axes.plot(steps, middle[k], f"{colour}{style}", label=label)
        low, high = middle[k] - spread[k], middle[k] + spread[k]
        axes.fill_between(steps, low, high, color=colour, alpha=0.1)


def label_noise_on_mnist() -> LabelNoise:
    """The same on MNIST, with the paper's numbers of samples; it must be prepared."""
    arms = Arm(1000, 0, 0.2), Arm(2000, 0, 0.2), Arm(1000, 1000, 0.2)
    all_data = Arm(20_000, 0, 0.0), Arm(10_000, 10_000, 0.0)
    return LabelNoise(arms + all_data, load=_mnist, hidden=(100, 20))


def _mnist(seed: int) -> Dataset:
    return tfds_images("mnist", seed=seed)
