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
from .._keys import apart
from .._optimizers import AbstractOptimizer, HyperparamController
from ..tasks import Classification, Dataset, digits, Split, tfds_images
from ._base import AbstractExperiment, Claim, Reproduction
from ._stepsize_label_noise_tasks import Arm, draw_tasks


class LabelNoise(AbstractExperiment):
    """A learned optimizer fits noisy labels, unless meta-trained on validation data.

    Wang et al. 2020, section 5: train-by-train with as many samples as
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

    def run(self, say: Callable[[str], None]) -> Reproduction:
        by_seed = [
            draw_tasks(self.arms, self.load(seed), self.hidden, self.batch_size, seed)
            for seed in range(self.seeds)
        ]
        tasks = [tasks[i] for i in range(len(self.arms)) for tasks in by_seed]
        stacked = jtu.tree_map(lambda *xs: jnp.stack(xs), *tasks)
        # The same draws in every arm: differences are within a seed.
        keys = jnp.tile(jr.split(jr.key(0), self.seeds), len(self.arms))
        say(f"{len(tasks)} learned optimizers, {self.meta_steps} meta-steps each ...")
        optimizers, losses = self._meta_train(stacked, keys)
        say(f"{self.test_steps} steps of training with each ...")
        at, seen = _evaluate(stacked, optimizers, self.test_steps, keys)
        shape = len(self.arms), self.seeds
        data = {
            "training": np.array([a.training for a in self.arms]),
            "validation": np.array([a.validation for a in self.arms]),
            "noise": np.array([a.noise for a in self.arms]),
            "step": at,
            "horizon": np.array(self.length),
            "accuracy": np.asarray(seen, np.float64).reshape(*shape, 2, -1),
            "meta_loss": np.asarray(losses, np.float64).reshape(*shape, -1),
        }
        return Reproduction(data, _draw(data), _claims(data))

    def _meta_train(
        self, tasks: Classification, keys: Array
    ) -> tuple[AbstractOptimizer, Float[Array, "runs steps"]]:
        pes = PES(self.window, self.pairs, self.sigma, ConstantLength(self.length))
        decay = optax.cosine_decay_schedule(self.learning_rate, self.meta_steps)
        outer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(decay))
        scales = self.nominal_scale, self.magnitude_scale
        return _meta_train(tasks, pes, outer, scales, self.meta_steps, keys)


def label_noise_on_mnist() -> LabelNoise:
    """The same on MNIST, with the paper's numbers of samples; it must be prepared."""
    arms = Arm(1000, 0, 0.2), Arm(2000, 0, 0.2), Arm(1000, 1000, 0.2)
    all_data = Arm(20_000, 0, 0.0), Arm(10_000, 10_000, 0.0)
    return LabelNoise(arms + all_data, load=_mnist, hidden=(100, 20))


def _mnist(seed: int) -> Dataset:
    return tfds_images("mnist", seed=seed)


def _fresh(scales: tuple[float, float], key: PRNGKeyArray) -> HyperparamController:
    nominal, magnitude = scales
    fresh = HyperparamController(key=key, nominal_scale=nominal, magnitude_scale=magnitude)
    head = lambda o: o.nominal.magnitude.head.weight  # pyright: ignore
    return eqx.tree_at(head, fresh, replace_fn=jnp.zeros_like)


@eqx.filter_jit
def _meta_train(
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


def _evaluate(
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


def _interval(differences: np.ndarray) -> tuple[float, float, float]:
    """Mean and 95 % interval by Student's t over the seeds."""
    n = len(differences)
    middle = float(differences.mean())
    if n < 2:
        return middle, -np.inf, np.inf
    error = differences.std(ddof=1) / np.sqrt(n) * scipy.stats.t.ppf(0.975, n - 1)
    return middle, float(middle - error), float(middle + error)


def _arms(data: dict[str, np.ndarray]) -> list[Arm]:
    columns = (data[k].tolist() for k in ("training", "validation", "noise"))
    return [Arm(*row) for row in zip(*columns, strict=True)]


def _claims(data: dict[str, np.ndarray]) -> list[Claim]:
    # Judged where it was meta-trained to be good; what it does beyond is a matter apart.
    horizon = int(np.searchsorted(data["step"], min(data["horizon"], data["step"][-1])))
    arms, last = _arms(data), data["accuracy"][..., horizon]
    mean = lambda i, which: f"{arms[i].name()}: {last[i, :, which].mean():.1%}"

    # Train-by-validation against each train-by-train of the same noise.
    def gains(
        chosen: list[int], last: np.ndarray
    ) -> dict[str, tuple[float, float, float, str]]:
        found = {}
        for i in (i for i in chosen if arms[i].validation):
            for j in (j for j in chosen if not arms[j].validation):
                same = arms[j].training == arms[i].training
                middle, low, high = _interval(last[i, :, 1] - last[j, :, 1])
                text = (
                    f"test accuracy {mean(i, 1)} against {mean(j, 1)}: {middle:+.1%} "
                    f"[{low:+.1%}, {high:+.1%}]"
                )
                key = "training samples" if same else "samples in all"
                found[key] = middle, low, high, text
        return found

    noisy = [i for i, a in enumerate(arms) if a.noise > 0]
    largest = max(a.training + a.validation for a in arms)
    whole = [
        i
        for i, a in enumerate(arms)
        if not a.noise and a.training + a.validation == largest
    ]
    fitted = [i for i in noisy if not arms[i].validation]
    true = [1 - 0.9 * arms[i].noise for i in fitted]
    beyond = gains(noisy, data["accuracy"][..., -1])
    wins = [
        Claim(
            f"with label noise, validation data win clearly against as many {key}",
            f"{text}; after {data['step'][-1]} steps {beyond[key][0]:+.1%} "
            f"[{beyond[key][1]:+.1%}, {beyond[key][2]:+.1%}]",
            low > 0,
        )
        for key, (_, low, _, text) in gains(noisy, last).items()
    ]
    same = gains(whole, last).values()
    return [
        *wins,
        Claim(
            "train-by-train fits the noisy labels",
            f"training accuracy {', '.join(mean(i, 0) for i in noisy)}, where the true "
            f"classes would have {min(true, default=1):.0%}",
            all(last[i, :, 0].mean() > t for i, t in zip(fitted, true, strict=True)),
        ),
        Claim(
            "without noise and with all the data there is no difference, to 1 %",
            "; ".join(text for *_, text in same),
            all(abs(middle) < 0.01 for middle, *_ in same),
        ),
    ]


def _draw(data: dict[str, np.ndarray]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        arms = _arms(data)
        noises = sorted({a.noise for a in arms}, reverse=True)
        columns = figure.subplots(1, len(noises), sharey=True, squeeze=False)[0]
        for axes, noise in zip(columns, noises, strict=True):
            shown = [i for i, a in enumerate(arms) if a.noise == noise]
            for j, i in enumerate(shown):
                for k, style in enumerate(("--", "-")):
                    curves = data["accuracy"][i, :, k]
                    middle, spread = curves.mean(0), curves.std(0)
                    label = arms[i].name() if k else None
                    axes.plot(data["step"], middle, f"C{j}{style}", label=label)
                    low, high = middle - spread, middle + spread
                    axes.fill_between(data["step"], low, high, color=f"C{j}", alpha=0.1)
            axes.set_title(f"{noise:.0%} of the labels redrawn", fontsize=10)
            axes.set(xlabel="step of training", ylim=(0.6, 1.01))
            axes.legend(frameon=False, fontsize=8, loc="lower right")
        columns[0].set_ylabel("accuracy: training (dashed), test")

    return draw
