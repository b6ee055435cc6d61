"""What estimators share that run whole episodes."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._episodes import AbstractEpisodeLength
from .._unroll import AbstractUnroll
from ._base import AbstractEstimator
from ._checks import check_unroll


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
        check_unroll(unroll, theta, key=key)
        return jnp.zeros((), jnp.int32)
