"""Families of tasks: what an optimizer is meta-trained on need not be one task."""

import abc
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from .._kinds import as_number, as_tuple, check_key, check_range
from ._base import AbstractTask
from ._quadratic import checked_noise, Quadratic


def _as_condition(value: Any) -> float:
    condition = as_number(value, "`condition`", "1e4")
    if not 1 <= condition < math.inf:
        raise ValueError(f"`condition` must be at least 1; got {condition}.")
    return condition


class AbstractFamily(eqx.Module):
    """A distribution of tasks."""

    @abc.abstractmethod
    def sample(self, *, key: PRNGKeyArray) -> AbstractTask:
        """A task drawn with `key`.

        It may draw shapes, so call it outside of `jax.jit` and `jax.vmap`. Tasks of
        different shapes compile to different programs.
        """


class QuadraticFamily(AbstractFamily):
    """Noisy quadratics with random spectra.

    The size and the condition number are drawn log-uniformly. Two eigenvalues are
    1 / condition and 1; the others are drawn log-uniformly between them.

    **Attributes:**

    - `sizes`: the least and the largest number of parameters.
    - `condition`: the largest condition number; the least is 1.
    - `noise`: the largest standard deviation of the optimum, drawn uniformly from 0 up.

    **Raises:**

    `ValueError` unless 2 <= `sizes[0]` <= `sizes[1]`, `condition` is finite and at least 1,
    and `noise` finite and at least 0.
    """

    sizes: tuple[int, int] = eqx.field(default=(2, 100), converter=as_tuple, static=True)
    condition: float = eqx.field(default=1e4, converter=_as_condition, static=True)
    noise: float = eqx.field(default=0.1, converter=checked_noise, static=True)

    def __check_init__(self):
        check_range(self.sizes, "sizes", 2)

    def sample(self, *, key: PRNGKeyArray) -> Quadratic:
        check_key(key)
        size_key, condition_key, spectrum_key, noise_key = jr.split(key, 4)
        size = log_uniform(size_key, self.sizes)
        depth = math.log(self.condition) * jr.uniform(condition_key)
        inner = jr.uniform(spectrum_key, (size - 2,))
        places = jnp.concatenate([jnp.zeros(1), inner, jnp.ones(1)])
        noise = self.noise * float(jr.uniform(noise_key))
        # Three times the mean loss of a start without noise, if all eigenvalues were 1.
        return Quadratic(jnp.exp(-depth * places), noise, (0.0, 1.5 * size))


def choice(key: PRNGKeyArray, n: int) -> int:
    """One of 0, ..., n - 1."""
    return int(jr.randint(key, (), 0, n))


def log_uniform(key: PRNGKeyArray, bounds: tuple[int, int]) -> int:
    """A whole number between two, both included, log-uniformly."""
    # Each whole number stands for the interval of length one around it.
    low, high = math.log(bounds[0] - 0.5), math.log(bounds[1] + 0.5)
    drawn = round(math.exp(float(jr.uniform(key, minval=low, maxval=high))))
    return min(max(drawn, bounds[0]), bounds[1])
