"""What users write, for pyright under its standard rules; nothing here is run.

Each line that must be an error says so: a comment that silences none is an error itself.
"""

# pyright: standard, reportUnnecessaryTypeIgnoreComment=true

import pathlib
from typing import assert_type, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array

import equistar as eqs


class SignMomentum(eqs.AbstractDirection):
    reads = ("momentum",)

    def __call__(self, tensor):
        return jnp.sign(tensor.momentum[-1])


class Annotated(eqs.AbstractDirection):
    factor: float
    reads: ClassVar[tuple[str, ...]] = ("momentum", "second_moment")

    def __call__(self, tensor: eqs.Tensor) -> Array:
        return self.factor * tensor.momentum[0] * tensor.inverse_rms


class Negated(eqs.AbstractDirection):
    inner: eqs.AbstractDirection

    @property
    def reads(self) -> tuple[str, ...]:
        return self.inner.reads

    def averaged(self, tensor: eqs.Tensor) -> dict[str, Array]:
        return self.inner.averaged(tensor)

    def __call__(self, tensor: eqs.Tensor) -> Array:
        return -self.inner(tensor)


class Bowl(eqs.tasks.AbstractTask):
    """Its bounds have a default and come last, as in the guide."""

    truth: jax.Array
    loss_bounds: tuple[float, float] = (0.0, 20.0)

    def init(self, *, key):
        return jr.normal(key, self.truth.shape)

    def loss(self, params, *, key, split=eqs.tasks.Split.TRAIN):
        return jnp.mean((params - self.truth) ** 2)


class Shifted(eqs.tasks.AbstractTask):
    """Its bounds are those of another task."""

    task: eqs.tasks.AbstractTask
    shift: float = eqx.field(static=True)

    @property
    def loss_bounds(self) -> tuple[float, float]:
        lower, upper = self.task.loss_bounds
        return lower + self.shift, upper + self.shift

    def init(self, *, key):
        return self.task.init(key=key)

    def loss(self, params, *, key, split=eqs.tasks.Split.TRAIN):
        return self.task.loss(params, key=key, split=split) + self.shift


class Balance(eqs.AbstractUnroll):
    def init(self, theta, *, key):
        return jr.normal(key, ())

    def step(self, theta, carry, *, key):
        after = (1.2 - theta) * carry + 0.3 * jr.normal(key, ())
        return after, jnp.minimum(carry**2, 25.0)


def own_parts() -> eqs.STAR:
    direction = Negated(Annotated(0.5))
    assert_type(direction.reads, tuple[str, ...])
    assert_type(direction.inner.reads, tuple[str, ...])
    Negated(SignMomentum(), 1)  # pyright: ignore[reportCallIssue]
    return eqs.STAR(direction=direction, nominal_scale=1e-4, key=jr.key(0))


def own_tasks() -> list[eqs.tasks.AbstractTask]:
    bowl = Bowl(jnp.ones(2))
    assert_type(bowl.loss_bounds, tuple[float, float])
    Bowl()  # pyright: ignore[reportCallIssue]
    noisy = eqs.tasks.Quadratic(jnp.ones(2), 0.1, (0.0, 1e3))
    scaled = eqs.tasks.Reparametrised(noisy, 0.1, 10.0, key=jr.key(0))
    return [Bowl(jnp.ones(2), (0.0, 1.0)), Shifted(bowl, 1.0), noisy, scaled]


def pretrained(params: dict[str, Array], grads: dict[str, Array]) -> dict[str, Array]:
    star = eqs.load_pretrained("star-best")
    assert_type(star, eqs.AbstractLearnedOptimizer)
    stacked = eqs.Stacked(star, {"blocks": 1, "embedding": 0})
    clipped = optax.clip_by_global_norm(1.0)
    optim = optax.chain(clipped, eqs.as_optax(stacked, learning_rate=1.0))
    updates, _ = optim.update(grads, optim.init(params), params)
    return eqx.apply_updates(params, updates)


def meta_trained() -> None:
    star = own_parts()
    unrolls = [eqs.InnerTraining(task) for task in own_tasks()]
    mixture = eqs.Mixture(unrolls, combination=eqs.NormalisedMean())
    estimator = eqs.PES(window=10, pairs=2, length=eqs.LogUniformLength(20, 100))
    trainable = eqs.all_but(star, lambda s: (s.accumulators, s.nominal))
    eqs.only(star, lambda s: s.nominl)  # pyright: ignore[reportAttributeAccessIssue]
    result = eqs.meta_train(
        mixture, estimator, star, steps=5, key=jr.key(1), trainable=trainable
    )
    assert_type(result.theta, eqs.STAR)
    eqs.save("mine.npz", result.theta, {"command": "an example"})
    eqs.save(pathlib.Path("mine.npz"), result.theta)
    loaded = eqs.load("mine.npz", parts=(Negated, Annotated))
    eqs.train(Bowl(jnp.ones(2)), loaded, steps=10, key=jr.key(2))
    gain = eqs.meta_train(
        Balance(), estimator, jnp.array(0.5), optax.adam(0.02), steps=4, key=jr.key(3)
    )
    assert_type(gain.theta, Array)


def plotted(result: eqs.MetaTrainResult[eqs.STAR]) -> None:
    curves = {"mine": np.asarray(result.history.meta_loss)[None]}
    eqs.plot.training_curves(pathlib.Path("curve.png"), curves)
    assert_type(result.theta.network, eqs.BlackboxMLP)


def compared() -> eqs.Evaluation:
    rates = (1e-2, 1e-1)
    baselines = (eqs.TunedMomentum(rates, 0.95), eqs.TunedOptax(optax.adamax, "Adamax"))
    entries = {"star-best": eqs.load_pretrained()}
    tasks = {"bowl": Bowl(jnp.ones(2))}
    return eqs.evaluate(entries, tasks, baselines=baselines, key=jr.key(4))
