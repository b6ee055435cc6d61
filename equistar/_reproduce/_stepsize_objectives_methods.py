"""Ways of learning a step size, by objective, recursion and estimator."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PRNGKeyArray, PyTree

from .._estimators import (
    AbstractEstimator,
    ForwardGradient,
    FullBackprop,
    FullES,
    PES,
)
from .._meta_training import AbstractLogger, meta_train, Metrics
from .._unrolls import (
    AbstractStepObjective,
    AbstractUnroll,
    ConstantLength,
    FinalLoss,
    LogFinalLoss,
    MeanLoss,
)
from ._base import uninterrupted
from ._stepsize_problem import ClosedForm, Descent, PlainUnroll


class _Path(AbstractLogger):
    """Remembers the step sizes."""

    seen: list[float]

    def __call__(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        self.seen.append(float(theta))


class Method(eqx.Module):
    """A recursion with what it is differentiated by, and the meta-step."""

    unroll: AbstractUnroll
    estimator: AbstractEstimator
    outer: optax.GradientTransformation

    def run(
        self, start: float, steps: int, key: PRNGKeyArray
    ) -> tuple[np.ndarray, int, int]:
        """The path, and how many meta-gradients were exactly zero, and not finite."""
        path = _Path([])
        result = meta_train(
            self.unroll,
            self.estimator,
            jnp.asarray(start, jnp.float32),
            self.outer,
            steps=steps,
            key=key,
            logger=path,
            throw=False,
        )
        history = uninterrupted(result).history
        seen = np.array(path.seen + path.seen[-1:] * (steps - len(path.seen)))
        # An estimator drops a particle whose gradient is not finite, which leaves zero.
        bad = (history.dropped > 0) | ~np.isfinite(history.gradient_norm)
        # A window in which no episode ends has no final loss: its zero is right.
        whole = self.estimator.warm_up == 0
        zero = (history.gradient_norm == 0) & ~bad & whole
        return seen, int(zero.sum()), int(bad.sum() + steps - len(path.seen))


def methods(
    descent: Descent, t: int, window: int, pairs: int, sigma: float
) -> dict[str, Method]:
    """All of them, by name, on `t` steps of descent."""
    plain, cured = PlainUnroll(descent), descent.renormalised()
    exact, on_g = ClosedForm(descent.problem, jnp.asarray(t)), _on_the_log_objective(1.0)
    rmsprop, sgd = (_on_the_loss(f(1e-3)) for f in (optax.rmsprop, optax.sgd))

    def by_each(
        name: str,
        unroll: AbstractUnroll,
        objective: AbstractStepObjective,
        outer: optax.GradientTransformation,
    ) -> dict[str, Method]:
        estimators = _estimators(objective, t, window, pairs, sigma)
        return {f"{name}, {k}": Method(unroll, e, outer) for k, e in estimators.items()}

    return {
        "G, closed form": Method(exact, FullBackprop(1, 1), on_g),
        # The mean loss of the renormalised recursion is G.
        **by_each("G, renormalised", cured, MeanLoss(), on_g),
        **by_each("G, plain", plain, LogFinalLoss(), _on_the_log_objective(1 / t)),
        **by_each("F, plain", plain, FinalLoss(), rmsprop),
        "F, plain, backprop, SGD": Method(plain, FullBackprop(t, 1, FinalLoss()), sgd),
    }


def _estimators(
    objective: AbstractStepObjective, t: int, window: int, pairs: int, sigma: float
) -> dict[str, AbstractEstimator]:
    length = ConstantLength(t)
    forward = ForwardGradient(window, pairs, length=length, objective=objective)
    return {
        "backprop": FullBackprop(t, 1, objective),
        "forward": forward,
        "ES": FullES(t, pairs, sigma, objective),
        "PES": PES(window, pairs, sigma, length, objective=objective),
    }


def _on_the_log_objective(scale: float) -> optax.GradientTransformation:
    schedule = lambda k: 0.01 / jnp.sqrt(k + 1.0)
    steps = optax.sgd(schedule), optax.keep_params_nonnegative()
    return optax.chain(optax.scale(scale), *steps)


def _on_the_loss(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(optax.clip(1e4), inner, optax.keep_params_nonnegative())
