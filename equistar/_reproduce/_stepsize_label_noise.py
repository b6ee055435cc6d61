"""A learned optimizer meta-trained on training or on validation data, with label noise."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import scipy.stats
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._episodes import ConstantLength
from .._estimators import PES
from .._inner_training import HeldOut, InnerTraining, train_init, train_step
from .._optimizers import AbstractOptimizer, STAR
from ..tasks import Dataset, digits, Examples, MLPClassification, Split
from ._base import AbstractExperiment, Claim, Reproduction


MODES = "train-by-train", "train-by-validation"


class LabelNoise(AbstractExperiment):
    """A learned optimizer fits noisy labels, unless meta-trained on validation data.

    Wang et al. 2020, section 5, with a STAR of 202 numbers on multi-layer perceptrons.
    Of so many samples train-by-train has all for training, and its meta-loss is on
    them too; train-by-validation trains on the first half, and its meta-loss is on the
    second. A share of the labels of both is redrawn, the test set's never. `conditions`
    are numbers of samples with that share; every number must divide the largest.
    """

    conditions: tuple[tuple[int, float], ...] = ((350, 0.2), (350, 0.0), (1400, 0.0))
    load: Callable[[int], Dataset] = eqx.field(default=digits, static=True)
    hidden: tuple[int, ...] = (32,)
    batch_size: int = 32
    nominal_scale: float = 1e-2
    blackbox_scale: float = 1e-3
    magnitude_scale: float = 0.1
    length: int = 400
    window: int = 20
    pairs: int = 2
    sigma: float = 0.03
    learning_rate: float = 0.02
    meta_steps: int = 200
    test_steps: int = 1000
    seeds: int = 5

    def full(self) -> "LabelNoise":
        return dataclasses.replace(
            self, hidden=(100, 20), length=1000, pairs=4, meta_steps=2000, test_steps=4000
        )

    def run(self, say: Callable[[str], None]) -> Reproduction:
        runs = [(c, mode) for c in self.conditions for mode in MODES]
        tasks = [self._task(c, m, s) for c, m in runs for s in range(self.seeds)]
        stacked = jtu.tree_map(lambda *xs: jnp.stack(xs), *tasks)
        # The same draws in every condition: differences are within a seed.
        keys = jnp.tile(jr.split(jr.key(0), self.seeds), len(runs))
        say(f"{len(tasks)} learned optimizers, {self.meta_steps} meta-steps each ...")
        optimizers = self._meta_train(stacked, keys)
        say(f"{self.test_steps} steps of training with each ...")
        at, seen = _evaluate(stacked, optimizers, self.test_steps, keys)
        shape = len(self.conditions), len(MODES), self.seeds, 2, -1
        data = {
            "samples": np.array([n for n, _ in self.conditions]),
            "label_noise": np.array([p for _, p in self.conditions]),
            "step": at,
            "accuracy": np.asarray(seen, np.float64).reshape(shape),
        }
        return Reproduction(data, _draw(data), _claims(data))

    def _task(
        self, condition: tuple[int, float], mode: str, seed: int
    ) -> MLPClassification:
        samples, share = condition
        largest = max(n for n, _ in self.conditions)
        dataset = self.load(seed)
        whole = jtu.tree_map(lambda *xs: np.concatenate(xs), *dataset.splits.values())
        if largest % samples or samples % 2 or largest >= len(whole.labels):
            raise ValueError(
                f"Numbers of samples must be even, divide the largest, {largest}, and "
                f"leave some of the {len(whole.labels)} for testing; got {samples}."
            )
        noise_key, label_key = jr.split(jr.key(seed))
        redrawn = np.asarray(jr.bernoulli(noise_key, share, (samples,)))
        other = np.asarray(jr.randint(label_key, (samples,), 0, dataset.classes))
        labels = np.where(redrawn, other, whole.labels[:samples])

        # Repeated up to the same number, so that one program serves all conditions.
        def part(low: int, high: int) -> Examples:
            times = largest // (high - low)
            inputs = np.tile(
                whole.inputs[low:high], (times, *[1] * (whole.inputs.ndim - 1))
            )
            return Examples(
                jnp.asarray(inputs), jnp.asarray(np.tile(labels[low:high], times))
            )

        half = samples // 2
        split = {"train-by-train": [(0, samples)] * 2}.get(
            mode, [(0, half), (half, samples)]
        )
        test = Examples(
            jnp.asarray(whole.inputs[largest:]), jnp.asarray(whole.labels[largest:])
        )
        splits = {
            Split.TRAIN.value: part(*split[0]),
            Split.INNER_VALID.value: part(*split[1]),
            Split.OUTER_VALID.value: test,
            Split.TEST.value: test,
        }
        dataset = Dataset(splits, dataset.classes, dataset.scale)
        return MLPClassification(dataset, self.hidden, self.batch_size)

    def _meta_train(self, tasks: MLPClassification, keys: Array) -> AbstractOptimizer:
        pes = PES(self.window, self.pairs, self.sigma, ConstantLength(self.length))
        decay = optax.cosine_decay_schedule(self.learning_rate, self.meta_steps)
        outer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(decay))
        scales = self.nominal_scale, self.blackbox_scale, self.magnitude_scale
        return _meta_train(tasks, pes, outer, scales, self.meta_steps, keys)


@eqx.filter_jit
def _meta_train(
    tasks: MLPClassification,
    estimator: PES,
    outer: optax.GradientTransformation,
    scales: tuple[float, float, float],
    steps: int,
    keys: Array,
) -> AbstractOptimizer:
    """One learned optimizer for each task."""

    def one(task: MLPClassification, key: PRNGKeyArray) -> AbstractOptimizer:
        init_key, particle_key, run_key = jr.split(key, 3)
        nominal, blackbox, magnitude = scales
        star = STAR(
            key=init_key,
            nominal_scale=nominal,
            blackbox_scale=blackbox,
            magnitude_scale=magnitude,
        )
        arrays, rest = eqx.partition(star, eqx.is_inexact_array)
        unroll = InnerTraining(task, HeldOut(Split.INNER_VALID))

        def body(state: Any, n: Array) -> tuple[Any, None]:
            arrays, outer_state, particles = state
            estimate, particles = estimator.estimate(
                unroll, eqx.combine(arrays, rest), particles, key=jr.fold_in(run_key, n)
            )
            with jax.numpy_dtype_promotion("standard"):
                updates, outer_state = outer.update(estimate.gradient, outer_state)
                arrays = optax.apply_updates(arrays, updates)
            return (arrays, outer_state, particles), None

        particles = estimator.init(unroll, star, key=particle_key)
        state = arrays, outer.init(arrays), particles
        (arrays, _, _), _ = jax.lax.scan(body, state, jnp.arange(steps))
        return eqx.combine(arrays, rest)

    return eqx.filter_vmap(one)(tasks, keys)


def _evaluate(
    tasks: MLPClassification, optimizers: AbstractOptimizer, steps: int, keys: Array
) -> tuple[np.ndarray, Float[Array, "runs 2 points"]]:
    """Accuracies on the training and the test data while a fresh network is trained."""
    every = max(1, steps // 40)
    points = steps // every
    return every * np.arange(points + 1), _curves(tasks, optimizers, every, points, keys)


@eqx.filter_jit
def _curves(
    tasks: MLPClassification, optimizers: PyTree, every: int, points: int, keys: Array
) -> Float[Array, "runs 2 points"]:
    def accuracy(task: MLPClassification, params: PyTree[Array], split: Split) -> Array:
        examples = task.dataset[split]
        guess = jnp.argmax(task.logits(params, examples.inputs), axis=-1)
        return jnp.mean((guess == examples.labels).astype(jnp.float32))

    def one(task: MLPClassification, optimizer: Any, key: PRNGKeyArray) -> Array:
        # Not the keys of the meta-training.
        init_key, run_key = jr.split(jr.fold_in(key, 1))
        state = train_init(task, optimizer, key=init_key)

        def block(state: Any, n: Array) -> tuple[Any, Array]:
            at = [accuracy(task, state.params, s) for s in (Split.TRAIN, Split.TEST)]
            step = lambda s, k: (train_step(task, optimizer, s, key=k)[0], None)
            keys = jr.split(jr.fold_in(run_key, n), every)
            return jax.lax.scan(step, state, keys)[0], jnp.stack(at)

        return jax.lax.scan(block, state, jnp.arange(points + 1))[1].T

    return eqx.filter_vmap(one)(tasks, optimizers, keys)


def _interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval by Student's t over the seeds."""
    n = len(differences)
    middle = float(differences.mean())
    if n < 2:
        return middle, -np.inf, np.inf
    error = differences.std(ddof=1) / np.sqrt(n) * scipy.stats.t.ppf(0.975, n - 1)
    return middle, float(middle - error), float(middle + error)


def _claims(data: dict[str, np.ndarray]) -> list[Claim]:
    last = data["accuracy"][..., -1]
    gains = [_interval(c[1, :, 1] - c[0, :, 1]) for c in last]
    setting = list(zip(data["samples"], data["label_noise"], strict=True))

    def text(i: int) -> str:
        (n, share), (middle, low, high) = setting[i], gains[i]
        train, valid = last[i, :, :, 1].mean(1)
        return (
            f"{n} samples, noise {share:.0%}: test accuracy {valid:.1%} against "
            f"{train:.1%}, {middle:+.1%} [{low:+.1%}, {high:+.1%}]"
        )

    noisy = [i for i, (_, share) in enumerate(setting) if share > 0]
    most = max(n for n, _ in setting)
    whole = [i for i, (n, share) in enumerate(setting) if share == 0 and n == most]
    fits = [last[i, 0, :, 0].mean() for i in noisy]
    clean = [1 - 0.9 * setting[i][1] for i in noisy]
    return [
        Claim(
            "with label noise, meta-training on validation data wins clearly",
            "; ".join(text(i) for i in noisy),
            all(gains[i][1] > 0 for i in noisy),
        ),
        Claim(
            "train-by-train fits the noisy labels",
            "; ".join(
                f"training accuracy {a:.1%}, where the true classes would have {b:.1%}"
                for a, b in zip(fits, clean, strict=True)
            ),
            all(a > b for a, b in zip(fits, clean, strict=True)),
        ),
        Claim(
            "without noise and with all the data there is no difference",
            "; ".join(text(i) for i in whole),
            all(abs(gains[i][0]) < 0.01 for i in whole),
        ),
    ]


def _draw(data: dict[str, np.ndarray]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        columns = figure.subplots(1, len(data["samples"]), sharey=True, squeeze=False)[0]
        for i, axes in enumerate(columns):
            for j, mode in enumerate(MODES):
                for k, style in enumerate(("--", "-")):
                    curves = data["accuracy"][i, j, :, k]
                    middle, spread = curves.mean(0), curves.std(0)
                    label = f"{mode}, {('training', 'test')[k]} accuracy"
                    axes.plot(data["step"], middle, f"C{j}{style}", label=label)
                    low, high = middle - spread, middle + spread
                    axes.fill_between(data["step"], low, high, color=f"C{j}", alpha=0.15)
            share = data["label_noise"][i]
            axes.set_title(f"{data['samples'][i]} samples, {share:.0%} of labels redrawn")
            axes.title.set_fontsize(9)
            axes.set(xlabel="step of training")
        columns[0].set(ylim=(0.6, 1.01), ylabel="accuracy")
        handles, labels = columns[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)

    return draw
