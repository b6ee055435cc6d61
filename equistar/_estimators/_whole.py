"""What estimators share that run whole episodes."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._unrolls import AbstractEpisodeLength, AbstractUnroll
from ._base import AbstractEstimator, MetaGradient
from ._checks import check_number
from ._own_parts import check_run


class AbstractWhole(AbstractEstimator):
    """Every estimate is of fresh episodes: all that is kept is their number so far."""

    length: eqx.AbstractVar[AbstractEpisodeLength]

    @property
    def steps(self) -> int:
        return self.length.maximum

    @property
    def warm_up(self) -> int:
        return 0

    def init(
        self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
    ) -> Int[Array, ""]:
        check_run(self, unroll, theta, key=key)
        return jnp.zeros((), jnp.int32)

    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: Int[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, Int[Array, ""]]:
        check_number(state)
        return self._of_episodes(unroll, theta, state, key=key), state + 1

    @abc.abstractmethod
    def _of_episodes(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        meta_step: Int[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> MetaGradient:
        """The estimate from fresh episodes that begin at meta-step `meta_step`."""
