"""How long episodes are, and where the first ones begin."""

import abc

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Int, PRNGKeyArray


class AbstractEpisodeLength(eqx.Module):
    """The number of steps of an episode, drawn anew at each of its starts."""

    @abc.abstractmethod
    def draw(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        """A length, at least 1."""


class ConstantLength(AbstractEpisodeLength):
    """Episodes of `length` steps."""

    length: int = eqx.field(static=True)

    def __check_init__(self):
        if self.length < 1:
            raise ValueError(f"An episode has at least 1 step; got {self.length}.")

    def draw(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        return jnp.asarray(self.length, jnp.int32)


class LogUniformLength(AbstractEpisodeLength):
    """Episodes whose length is log-uniform on `shortest`, ..., `longest`.

    Windowed estimators then estimate the gradient of the mean loss *per step*,
    $E[\\sum_t l_t] / E[T]$, in which long episodes weigh more.
    """

    shortest: int = eqx.field(static=True)
    longest: int = eqx.field(static=True)

    def __check_init__(self):
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(
                "LogUniformLength needs 1 <= shortest <= longest; got "
                f"{self.shortest} and {self.longest}."
            )

    def draw(self, *, key: PRNGKeyArray) -> Int[Array, ""]:
        low, high = jnp.log(float(self.shortest)), jnp.log(self.longest + 1.0)
        length = jnp.exp(jr.uniform(key, (), low.dtype, low, high))
        return jnp.clip(length.astype(jnp.int32), self.shortest, self.longest)


class AbstractStarts(eqx.Module):
    """Where in its first episode a particle begins."""

    @abc.abstractmethod
    def first_length(self, length: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        """The length of a particle's first episode, of at most `length` steps."""


class Staggered(AbstractStarts):
    """First episodes are shortened at random, so that particles do not restart in step.

    Parameters, optimizer state and time inputs of a shortened episode start fresh.
    """

    def first_length(self, length: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        return jr.randint(key, (), 1, length + 1, length.dtype)


class LockStep(AbstractStarts):
    """All particles begin together."""

    def first_length(self, length: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        return length
