"""Preconditioners on the output of the blackbox term."""

import abc
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .._kinds import as_int, check_count
from ._part import AbstractPart
from ._tensor import Tensor


class AbstractPreconditioner(AbstractPart):
    """A factor on the blackbox direction, from a tensor's statistics.

    `reads` names the accumulators that it needs.
    """

    @abc.abstractmethod
    def __call__(self, tensor: Tensor) -> Array | float:
        """The factor; broadcasts to the tensor's shape."""


class NoPreconditioner(AbstractPreconditioner):
    """The factor 1."""

    reads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, tensor: Tensor) -> float:
        return 1.0


class EMAPreconditioner(AbstractPreconditioner):
    """STAR's diagonal preconditioner, $R = 1/\\sqrt{v + 10^{-6}}$.

    It has no fixed point where gradients vanish: then $v \\to 0$ and $R \\to 1000$. See
    [`equistar.STAR`][] for the source.
    """

    reads: ClassVar[tuple[str, ...]] = ("second_moment",)

    def __call__(self, tensor: Tensor) -> Array:
        return tensor.inverse_rms


class GradientScale(AbstractPreconditioner):
    """The root mean square of $A_j = m_j R$ over the tensor, in place of STAR's $R$. Ours.

    $$rms(A_j) = \\sqrt{mean(A_j^2)}$$

    It vanishes with the gradient, so the blackbox term has a fixed point where gradients
    vanish, which it does not have with $R$.

    **Attributes:**

    - `index`: which momentum, counted from 0: the default, 0, is the first, whose scale
        equations call $rms(A_1)$.

    **Raises:**

    `ValueError` if `index` is not a whole number of at least 0, or, at the first use, if
    there is no such momentum.
    """

    reads: ClassVar[tuple[str, ...]] = ("momentum", "second_moment")
    index: int = eqx.field(default=0, converter=as_int, static=True)

    def __check_init__(self):
        check_count(self.index, "index", least=0)

    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        number = len(tensor.momentum)
        if self.index >= number:
            raise ValueError(
                f"GradientScale reads momentum {self.index}, but there are only "
                f"{number}: use a smaller `index`."
            )
        return {self._name: tensor.products[self._name]}

    @property
    def _name(self) -> str:
        return f"tensor.A_{self.index} A_{self.index}"

    def __call__(self, tensor: Tensor) -> Array:
        square = self.means(tensor)[self._name]
        # The root has no slope at zero.
        positive = square > 0
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
