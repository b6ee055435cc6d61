"""How long episodes are, and where the first ones begin."""

import abc
import math
from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._kinds import as_int, as_steps, check_count, check_steps, described


class AbstractEpisodeLength(eqx.Module):
    """The number of steps of an episode, drawn again whenever an episode begins."""

    @property
    @abc.abstractmethod
    def maximum(self) -> int:
        """The largest number of steps that an episode may have."""

    @abc.abstractmethod
    def draw(self, meta_step: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        """A length for an episode that begins at meta-step `meta_step`.

        It must be at least 1 and at most `maximum`. That is checked of draws at meta-step
        0, before a run begins, and of no later ones.
        """

    @abc.abstractmethod
    def mean(self, meta_step: Int[Array, ""]) -> Float[Array, ""]:
        """The expected length of an episode that begins at meta-step `meta_step`."""


def draw_length(
    length: AbstractEpisodeLength, meta_step: Int[Array, ""], *, key: PRNGKeyArray
) -> Int[Array, ""]:
    """A length that is drawn, as an array also where `draw` returns a Python number."""
    return jnp.asarray(length.draw(meta_step, key=key), jnp.int32)


def expected_length(
    length: AbstractEpisodeLength, meta_step: Int[Array, ""]
) -> Float[Array, ""]:
    """The expected length, as an array also where `mean` returns a Python number."""
    mean = jnp.asarray(length.mean(meta_step))
    return mean if jnp.issubdtype(mean.dtype, jnp.floating) else mean.astype(float)


class ConstantLength(AbstractEpisodeLength):
    """Episodes of equal length.

    **Attributes:**

    - `length`: in steps.

    **Raises:**

    `ValueError` if `length` is not a whole number from 1 to $2^{31} - 1$.
    """

    length: int = eqx.field(converter=as_int, static=True)

    def __check_init__(self):
        check_steps(self.length, "length")

    @property
    def maximum(self) -> int:
        return self.length

    def draw(self, meta_step: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        return jnp.asarray(self.length, jnp.int32)

    def mean(self, meta_step: Int[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(float(self.length))


class LogUniformLength(AbstractEpisodeLength):
    """Episodes whose length is log-uniform on `shortest`, ..., `longest`.

    Length $n$ has the probability $\\log\\frac{n + 1}{n} / \\log\\frac{\\text{longest} + 1}
    {\\text{shortest}}$.

    **Attributes:**

    - `shortest`, `longest`: in steps.

    **Raises:**

    `ValueError` unless both are whole numbers with 1 <= `shortest` <= `longest` < $2^{31}$.
    """

    shortest: int = eqx.field(converter=as_int, static=True)
    longest: int = eqx.field(converter=as_int, static=True)

    def __check_init__(self):
        check_count(self.shortest, "shortest")
        check_steps(self.longest, "longest")
        if self.shortest > self.longest:
            raise ValueError(
                "LogUniformLength needs 1 <= shortest <= longest; got "
                f"{self.shortest} and {self.longest}."
            )

    @property
    def maximum(self) -> int:
        return self.longest

    def draw(self, meta_step: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        low, high = jnp.log(float(self.shortest)), jnp.log(self.longest + 1.0)
        length = jnp.exp(jr.uniform(key, (), low.dtype, low, high))
        return jnp.clip(length.astype(jnp.int32), self.shortest, self.longest)

    def mean(self, meta_step: Int[Array, ""]) -> Float[Array, ""]:
        # sum_n n log((n + 1) / n), summed by parts.
        s, n = self.shortest, self.longest + 1
        total = n * math.log(n) - s * math.log(s) - math.lgamma(n + 1) + math.lgamma(s + 1)
        return jnp.asarray(total / math.log(n / s))


def settled(length: AbstractEpisodeLength) -> int:
    """Steps after which staggered particles are where they are in the long run.

    That long ago, a restart was as likely as it ever is. With lengths that are drawn this
    is so to within a thousandth: the first ones are shortened without regard to a long
    episode's being met more often.
    """
    once = isinstance(length, ConstantLength)
    return length.maximum if once else 2 * length.maximum


def as_length(length: int | AbstractEpisodeLength) -> AbstractEpisodeLength:
    """A number of steps as a `ConstantLength`.

    **Raises:**

    `ValueError` for what is neither.
    """
    if isinstance(length, AbstractEpisodeLength):
        return length
    if isinstance(length, int | np.integer) and not isinstance(length, bool):
        return ConstantLength(int(length))
    raise ValueError(
        "`length` must be a number of steps or an AbstractEpisodeLength, say "
        f"LogUniformLength(100, 2000); got {length!r}."
    )


class GrowingLength(AbstractEpisodeLength):
    """Episodes that grow geometrically from `first` to `last` steps of the inner problem.

    $$T(n) = \\text{first} \\, (\\text{last} / \\text{first})^{\\min(n / N, 1)}$$

    rounded, at meta-step $n$, with $N$ = `meta_steps`. This is a curriculum that begins
    with short episodes, whose meta-gradients are well-behaved. Short episodes are not
    cheaper: a window always has the same number of steps, and `FullES` and `FullBackprop`
    always run the longest possible episode.

    **Attributes:**

    - `first`, `last`: the initial and the final length, in steps.
    - `meta_steps`: $N$.

    **Raises:**

    `ValueError` if one of them is not a whole number of at least 1 and below 2**31.
    """

    first: int = eqx.field(converter=as_int, static=True)
    last: int = eqx.field(converter=as_int, static=True)
    meta_steps: int = eqx.field(converter=as_int, static=True)

    def __check_init__(self):
        check_steps(self.first, "first")
        check_steps(self.last, "last")
        check_steps(self.meta_steps, "meta_steps")

    @property
    def maximum(self) -> int:
        return max(self.first, self.last)

    # Both ends are exact, whatever the rounding between them.
    def draw(self, meta_step: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        share = jnp.minimum(meta_step / self.meta_steps, 1.0)
        between = self.first * jnp.exp(share * math.log(self.last / self.first))
        length = jnp.round(between).astype(jnp.int32)
        length = jnp.clip(length, min(self.first, self.last), self.maximum)
        length = jnp.where(meta_step <= 0, self.first, length)
        return jnp.where(meta_step >= self.meta_steps, self.last, length)

    def mean(self, meta_step: Int[Array, ""]) -> Float[Array, ""]:
        return self.draw(meta_step, key=jr.key(0)).astype(float)


class Curriculum(AbstractEpisodeLength):
    """Stages with different episode lengths, which begin at given meta-steps.

    !!! Example

        ```python
        eqs.Curriculum({0: eqs.ConstantLength(100), 5000: eqs.LogUniformLength(100, 2000)})
        ```

    An episode that is running when a stage begins keeps its length.
    """

    begins: tuple[int, ...] = eqx.field(static=True)
    stages: tuple[AbstractEpisodeLength, ...]

    def __init__(self, stages: Mapping[int, int | AbstractEpisodeLength]):
        """**Arguments:**

        - `stages`: lengths, or numbers of steps, by the meta-step at which they begin, one
            of which is 0.

        **Raises:**

        `ValueError` if `stages` is no mapping, none of them begins at 0, one begins at
        something else than a whole number of at least 0 and below 2**31, or a length is
        neither a number of steps nor an [`equistar.AbstractEpisodeLength`][].
        """
        if not isinstance(stages, Mapping):
            raise ValueError(
                "`stages` must be lengths by the meta-step at which they begin, say "
                f"`{{0: 100, 5000: 2000}}`; got {described(stages)}."
            )
        stages = {as_steps(n, "stages", least=0): stages[n] for n in stages}
        if 0 not in stages:
            raise ValueError(
                "The first stage of a Curriculum begins at meta-step 0; got stages at "
                f"{sorted(stages)}."
            )
        self.begins = tuple(sorted(stages))
        self.stages = tuple(as_length(stages[begin]) for begin in self.begins)

    @property
    def maximum(self) -> int:
        return max(stage.maximum for stage in self.stages)

    def draw(self, meta_step: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        drawn = [draw_length(stage, meta_step, key=key) for stage in self.stages]
        return jnp.stack(drawn)[self._stage(meta_step)]

    def mean(self, meta_step: Int[Array, ""]) -> Float[Array, ""]:
        means = [expected_length(stage, meta_step) for stage in self.stages]
        return jnp.stack(means)[self._stage(meta_step)]

    def _stage(self, meta_step: Int[Array, ""]) -> Int[Array, ""]:
        begins = jnp.asarray(self.begins, meta_step.dtype)
        return jnp.sum(begins <= meta_step) - 1


class AbstractStarts(eqx.Module):
    """Where in its first episode a particle begins."""

    @abc.abstractmethod
    def first_length(self, length: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        """The length of a particle's first episode, of at most `length` steps."""


class Staggered(AbstractStarts):
    """First episodes are shortened at random, so that particles do not restart together.

    Their length is uniform on 1, ..., $T$, with $T$ the episode's own length.

    Parameters, optimizer state and time inputs of a shortened episode start fresh.
    """

    def first_length(self, length: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        return 1 + jr.randint(key, (), 0, length, length.dtype)


class LockStep(AbstractStarts):
    """All particles begin together."""

    def first_length(self, length: Int[Array, ""], *, key: PRNGKeyArray) -> Int[Array, ""]:
        return length
