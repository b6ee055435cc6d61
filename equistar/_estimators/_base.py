"""What a meta-gradient estimator is."""

import abc

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._kinds import check_parts
from .._unrolls import AbstractUnroll


class MetaGradient(eqx.Module):
    """An estimate of the gradient of an unroll's mean loss.

    **Attributes:**

    - `gradient`: a pytree in the structure of `theta`; `None` where `theta` holds
        something else than an inexact array.
    - `meta_loss`: the mean of those losses behind the estimate that are finite.
    - `diverged`: members whose carry is not finite at the window's end, or at the
        end of a whole episode.
    - `dead`: particles that carry no signal. Their contribution is exactly zero, as when
        both members of a pair recorded the same losses, or, with
        [`equistar.FinalLoss`][], in every window in which no episode ends.
    - `dropped`: particles whose contribution was not finite and was counted as zero. If
        all of them were dropped, the gradient is NaN.
    """

    gradient: PyTree
    meta_loss: Float[Array, ""]
    diverged: Int[Array, ""]
    dead: Int[Array, ""]
    dropped: Int[Array, ""]


class AbstractEstimator(eqx.Module):
    """Estimates the gradient of an unroll's mean loss, window by window.

    It knows only unrolls: no tasks, and no optimizers.
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
        """Steps of the unroll after which particles that began staggered are spread over
        their episodes as in the long run, to within a thousandth.
        """

    @abc.abstractmethod
    def init(
        self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
    ) -> PyTree[Array]:
        """The particles before the first window.

        **Arguments:**

        - `unroll`: what to differentiate.
        - `theta`: the meta-parameters; its inexact arrays are differentiated.
        - `key`: a PRNG key.

        **Raises:**

        `ValueError` if the unroll's carry or loss cannot be scanned over, `theta` has no
        inexact array, or a part of the estimator returns what it may not.
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
        """One estimate.

        **Arguments:**

        - `unroll`, `theta`: as for `init`; `theta` may have moved since.
        - `state`: the particles, from `init` or the estimate before.
        - `key`: a PRNG key.

        **Returns:**

        `(meta_gradient, state)`: a [`equistar.MetaGradient`][], and the particles after it.
        """
