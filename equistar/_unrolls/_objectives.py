"""What of an episode's losses is minimised."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._kinds import as_number


class AbstractObjective(eqx.Module):
    """One number from the losses $l_0, \\dots, l_{T-1}$ of an episode.

    Estimators that run whole episodes ([`equistar.FullES`][] and
    [`equistar.FullBackprop`][]) take any objective. Those that see windows of episodes
    take an [`equistar.AbstractStepObjective`][], which is a sum over steps.
    """

    @abc.abstractmethod
    def episode(
        self,
        losses: Float[Array, " steps"],
        length: Int[Array, ""],
        mean_length: Float[Array, ""],
    ) -> Float[Array, ""]:
        """The objective of an episode.

        **Arguments:**

        - `losses`: its losses; those from index `length` on are not part of the episode.
        - `length`: $T$.
        - `mean_length`: the expectation of $T$.
        """


class AbstractStepObjective(AbstractObjective):
    """An objective that is a sum over steps, so that windows of an episode suffice.

    $$\\frac{1}{E[T]} \\sum_{t < T} f(l_t, t, T)$$
    """

    @abc.abstractmethod
    def step(
        self,
        loss: Float[Array, ""],
        step: Int[Array, ""],
        length: Int[Array, ""],
        mean_length: Float[Array, ""],
    ) -> Float[Array, ""]:
        """$f(l_t, t, T)$, with $t = 0, \\dots, T - 1$."""

    def episode(
        self,
        losses: Float[Array, " steps"],
        length: Int[Array, ""],
        mean_length: Float[Array, ""],
    ) -> Float[Array, ""]:
        steps = jnp.arange(len(losses), dtype=length.dtype)
        values = jax.vmap(lambda l, t: self.step(l, t, length, mean_length))(losses, steps)
        return jnp.sum(jnp.where(steps < length, values, 0)) / mean_length


class MeanLoss(AbstractStepObjective):
    """The mean loss per step, $E[\\sum_t l_t] / E[T]$: long episodes weigh more."""

    def step(
        self,
        loss: Float[Array, ""],
        step: Int[Array, ""],
        length: Int[Array, ""],
        mean_length: Float[Array, ""],
    ) -> Float[Array, ""]:
        return loss


class EpisodeMeanLoss(AbstractStepObjective):
    """The mean over episodes of their mean loss, $E[\\frac{1}{T} \\sum_t l_t]$.

    The same as [`equistar.MeanLoss`][] where all episodes are equally long.
    """

    def step(
        self,
        loss: Float[Array, ""],
        step: Int[Array, ""],
        length: Int[Array, ""],
        mean_length: Float[Array, ""],
    ) -> Float[Array, ""]:
        return loss * mean_length.astype(loss.dtype) / length.astype(loss.dtype)


class FinalLoss(AbstractStepObjective):
    """The last loss of an episode, $E[l_{T-1}]$."""

    def step(
        self,
        loss: Float[Array, ""],
        step: Int[Array, ""],
        length: Int[Array, ""],
        mean_length: Float[Array, ""],
    ) -> Float[Array, ""]:
        return jnp.where(step == length - 1, loss * mean_length.astype(loss.dtype), 0)


class LogFinalLoss(AbstractStepObjective):
    """The logarithm of the last loss, $E[\\log l_{T-1}]$; losses must be positive."""

    def step(
        self,
        loss: Float[Array, ""],
        step: Int[Array, ""],
        length: Int[Array, ""],
        mean_length: Float[Array, ""],
    ) -> Float[Array, ""]:
        last = step == length - 1
        # Other steps' logarithms, were they infinite, must not reach the gradient.
        log = _log(jnp.where(last, loss, 1))
        return jnp.where(last, log * mean_length.astype(loss.dtype), 0)


class LogMeanLoss(AbstractObjective):
    """The logarithm of the mean loss, $E[\\log \\frac{1}{T} \\sum_t l_t]$."""

    def episode(
        self,
        losses: Float[Array, " steps"],
        length: Int[Array, ""],
        mean_length: Float[Array, ""],
    ) -> Float[Array, ""]:
        return _log(_mean(losses, length))


class ExcessLoss(AbstractObjective):
    """How far a mean loss exceeds 1, on a soft logarithmic scale. Ours.

    $$E\\left[\\frac{1}{k} \\log\\Big(1 + \\bar l^{\\,k}\\Big)\\right], \\qquad
    \\bar l = \\frac{1}{T} \\sum_t l_t$$

    Far above 1 it equals [`equistar.LogMeanLoss`][]. Below 1 it changes by at most
    $\\log(2) / k$, and its slope falls with $\\bar l$. With [`equistar.Relative`][]
    unrolls, 1 is the reference's loss, so tasks on which the reference is already beaten
    count less than those on which it is not.

    **Arguments:**

    - `sharpness`: $k$, positive. At 2, a task at half the reference's loss has a fifth of
        the weight of one far above it.

    **Raises:**

    `ValueError` if `sharpness` is not positive and finite.
    """

    sharpness: float = eqx.field(
        default=2.0,
        static=True,
        converter=lambda x: as_number(x, "`sharpness`", "2.0"),
    )

    def __check_init__(self):
        if not 0 < self.sharpness < math.inf:
            raise ValueError(
                f"`sharpness` must be positive and finite; got {self.sharpness}."
            )

    def episode(
        self,
        losses: Float[Array, " steps"],
        length: Int[Array, ""],
        mean_length: Float[Array, ""],
    ) -> Float[Array, ""]:
        # As the logarithm of a sum of exponentials: powers of large losses overflow.
        power = self.sharpness * _log(_mean(losses, length))
        return jnp.logaddexp(power, jnp.zeros_like(power)) / self.sharpness


class MinimumLoss(AbstractObjective):
    """The lowest loss of an episode, $E[\\min_t l_t]$."""

    def episode(
        self,
        losses: Float[Array, " steps"],
        length: Int[Array, ""],
        mean_length: Float[Array, ""],
    ) -> Float[Array, ""]:
        running = jnp.arange(len(losses), dtype=length.dtype) < length
        return jnp.min(jnp.where(running, losses, jnp.inf))


def _mean(losses: Float[Array, " steps"], length: Int[Array, ""]) -> Float[Array, ""]:
    running = jnp.arange(len(losses), dtype=length.dtype) < length
    return jnp.sum(jnp.where(running, losses, 0)) / length.astype(losses.dtype)


# Its slope at zero, which is the lower bound of many a loss, would be infinite.
def _log(x: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.log(jnp.maximum(x, jnp.finfo(x.dtype).tiny))
