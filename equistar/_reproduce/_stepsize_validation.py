"""Train-by-train against train-by-validation on least squares."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..analysis import descent_iterates, draw_least_squares
from ._base import AbstractExperiment, Claim
from ._listed import listed


class TrainByValidation(AbstractExperiment):
    """Step sizes tuned on training loss overfit, on validation loss they do not.

    Wang et al. 2021, section 3: a step size is chosen on many least-squares problems, by
    its mean training loss on n samples or its mean loss on n / 2 others after training on
    n / 2; its error is |w_t - w*|^2 on further problems, where zero has an error of 1.
    """

    size: int = 200
    steps: int = 40
    tasks: int = 40
    test_tasks: int = 20
    noises: tuple[float, ...] = (0.5, 1.0, 2.0, 3.0, 5.0)
    samples: tuple[float, ...] = (0.5, 1.0, 2.0, 5.0, 10.0)
    seed: int = 0

    def full(self) -> "TrainByValidation":
        return dataclasses.replace(self, size=1000, tasks=300, test_tasks=10)

    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        half = self.size // 2
        noises, settings = jnp.array(self.noises), (self.tasks, self.test_tasks)
        say(f"{self.tasks} problems of {half} samples, each with every noise ...")
        noise_errors, chosen = self._tune(half, noises, *settings)
        by_samples = [self._errors_with_samples(share, say) for share in self.samples]
        return {
            "noises": np.array(self.noises),
            "errors_by_noise": noise_errors,
            "step_sizes_by_noise": chosen,
            "samples_over_size": np.array(self.samples),
            "errors_by_samples": np.array(by_samples),
        }

    def _errors_with_samples(
        self, share: float, say: Callable[[str], None]
    ) -> Float[np.ndarray, "2"]:
        n = int(share * self.size)
        # Fewer problems where each is large.
        fewer = max(4, int(self.tasks / max(1.0, 2 * share)))
        say(f"noise 1: {fewer} problems of {n} samples ...")
        return self._tune(n, jnp.ones(1), fewer, min(self.test_tasks, fewer))[0][0]

    def _tune(
        self, samples: int, noises: Float[Array, " k"], tasks: int, test_tasks: int
    ) -> tuple[Float[np.ndarray, "k 2"], Float[np.ndarray, "k 2"]]:
        """Errors and step sizes, by noise, of train-by-train and of train-by-validation."""
        rates = jnp.logspace(-6.0, 0.0, 25)
        meta, test = jr.split(jr.key(self.seed))
        one = lambda key, i: _one(
            samples, self.size, noises, rates, self.steps, jr.fold_in(key, i)
        )
        losses = np.mean([one(meta, i)[0] for i in range(tasks)], axis=0, dtype=np.float64)
        errors = [one(test, i)[1] for i in range(test_tasks)]
        errors = np.mean(errors, axis=0, dtype=np.float64)
        # A step size whose loss overflows is none.
        best = np.argmin(np.nan_to_num(losses, nan=np.inf), axis=-1)[..., None]
        chosen = np.take_along_axis(errors, best, axis=-1)[..., 0]
        return chosen, np.asarray(rates, np.float64)[best[..., 0]]

    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        return [*_claims_by_noise(data), _more_samples_close_the_gap(data)]

    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        left, right = figure.subplots(1, 2)
        by_noise, by_samples = data["errors_by_noise"].T, data["errors_by_samples"].T
        for i, name in enumerate(("train-by-train", "train-by-validation")):
            left.plot(data["noises"], by_noise[i], marker="o", label=name)
            right.plot(data["samples_over_size"], by_samples[i], marker="o")
        for axes in (left, right):
            axes.axhline(1, color="grey", linestyle=":", label="predicting zero")
            axes.set(yscale="log")
        left.set(xlabel="noise", title="error, n = d / 2")
        right.set(xlabel="n / d", xscale="log", title="error, noise 1")
        handles, labels = left.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)


@eqx.filter_jit
def _one(
    samples: int,
    size: int,
    noises: Float[Array, " k"],
    rates: Float[Array, " m"],
    steps: int,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "k 2 m"], Float[Array, "k 2 m"]]:
    """Meta-losses on training and on validation data, and the errors of both."""

    def at(noise: Float[Array, ""]) -> tuple[Float[Array, "2 m"], Float[Array, "2 m"]]:
        problem = draw_least_squares(samples, size, noise, key=key)
        first, second = problem.split(samples // 2)
        whole = descent_iterates(problem, rates, steps, 40 * noise)
        part = descent_iterates(first, rates, steps, 40 * noise)
        error = lambda w: jnp.sum((w - problem.truth[None]) ** 2, axis=1)
        losses = jnp.stack([problem.loss(whole), second.loss(part)])
        return losses, jnp.stack([error(whole), error(part)])

    # The inputs are the same at every noise, so they are decomposed once.
    return jax.vmap(at)(noises)


def _claims_by_noise(data: Mapping[str, np.ndarray]) -> list[Claim]:
    noises, (train, valid) = data["noises"], data["errors_by_noise"].T
    loud = noises >= 1
    return [
        Claim(
            "train-by-train overfits: for large noise it is worse than predicting zero",
            f"errors {listed(train)} at noise {listed(noises)}",
            bool(np.all(train[noises >= 2] > 1)),
        ),
        Claim(
            "train-by-validation does not lose to the zero predictor, to a thousandth",
            f"errors {listed(valid)}",
            bool(np.all(valid < 1 + 1e-3) and np.all(valid[loud] < train[loud])),
        ),
        Claim(
            "the gap grows with the noise",
            f"gaps {listed(train - valid)}",
            bool(np.all(np.diff(train - valid) > 0)),
        ),
    ]


def _more_samples_close_the_gap(data: Mapping[str, np.ndarray]) -> Claim:
    gap = np.ptp(data["errors_by_samples"], axis=1)
    return Claim(
        "with more samples the gap closes",
        f"gaps {listed(gap)} at n / d of {listed(data['samples_over_size'])}",
        bool(gap[-1] < 0.1 * gap.max() and np.all(np.diff(gap[1:]) < 0)),
    )
