"""What a meta-gradient estimator is."""

import abc

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._kinds import check_parts
from .._unroll import AbstractUnroll


class MetaGradient(eqx.Module):
    """An estimate of the gradient of an unroll's mean loss.

    **Attributes:**

    - `gradient`: a pytree in the structure of `theta`; `None` where `theta` holds
        something else than an inexact array.
    - `meta_loss`: the mean of the losses that the estimate was made from, as far as these
        are finite.
    - `diverged`: members whose carry is not finite at the window's end, or at that
        of a whole episode.
    - `dead`: particles that carry no signal: their contribution is exactly zero, as when
        both members of a pair recorded the same losses; with [`equistar.FinalLoss`][] also
        in every window in which no episode ends.
    - `dropped`: particles whose contribution was not finite, and counted as zero. Where
        all of them were, nothing is known and the gradient is NaN.
    """

    gradient: PyTree
    meta_loss: Float[Array, ""]
    diverged: Int[Array, ""]
    dead: Int[Array, ""]
    dropped: Int[Array, ""]


class AbstractEstimator(eqx.Module):
    """Estimates the gradient of an unroll's mean loss, window by window.

    It knows unrolls and nothing else.
    """

    def __check_init__(self) -> None:
        check_parts(self)

    @property
    @abc.abstractmethod
    def steps(self) -> int:
        """Steps of the unroll between two estimates."""

    @property
    @abc.abstractmethod
    def warm_up(self) -> int:
        """Steps until the particles are spread over episodes as they stay for good."""

    @abc.abstractmethod
    def init(
        self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
    ) -> PyTree[Array]:
        """The particles before the first window.

        **Arguments:**

        - `unroll`: what to differentiate.
        - `theta`: the meta-parameters; its inexact arrays are differentiated.
        - `key`: a PRNG key.
        """

    @abc.abstractmethod
    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: PyTree[Array],
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, PyTree[Array]]:
        """`(meta_gradient, state)`: one estimate, and the particles after it."""
