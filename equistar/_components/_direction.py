"""Nominal directions: what a hand-made optimizer would step along."""

import abc
from typing import ClassVar

from jaxtyping import Array, Float

from ._part import AbstractPart
from ._tensor import Tensor


class AbstractDirection(AbstractPart):
    """A descent direction, to be subtracted from the parameters.

    A new one is a class of a few lines: `reads` names the accumulators that it needs,
    and `__call__` computes the direction from them.

    ```python
    class SignMomentum(eqs.AbstractDirection):
        reads = ("momentum",)

        def __call__(self, tensor):
            return jnp.sign(tensor.momentum[-1])

    optimizer = eqs.STAR(direction=SignMomentum(), key=key)
    ```
    """

    @abc.abstractmethod
    def __call__(self, tensor: Tensor) -> Float[Array, "*shape"]:
        """The direction, not yet multiplied by a step size: of the tensor's shape."""


class GradientDirection(AbstractDirection):
    """The gradient, $g$: stochastic gradient descent."""

    reads: ClassVar[tuple[str, ...]] = ()

    def __call__(self, tensor: Tensor) -> Float[Array, "*shape"]:
        return tensor.grad


class MomentumDirection(AbstractDirection):
    """The last momentum: $m_3$ of $m_1, m_2, m_3$, with indices from 1."""

    reads: ClassVar[tuple[str, ...]] = ("momentum",)

    def __call__(self, tensor: Tensor) -> Float[Array, "*shape"]:
        return tensor.momentum[-1]


class AggMoDirection(AbstractDirection):
    """The mean of the momenta, $mean_j\\,m_j$: aggregated momentum.

    ??? cite

        ```bibtex
        @inproceedings{lucas2019aggregated,
            title={Aggregated Momentum: Stability Through Passive Damping},
            author={Lucas, James and Sun, Shengyang and Zemel, Richard and
                    Grosse, Roger},
            booktitle={International Conference on Learning Representations},
            year={2019},
        }
        ```
    """

    reads: ClassVar[tuple[str, ...]] = ("momentum",)

    def __call__(self, tensor: Tensor) -> Float[Array, "*shape"]:
        return _mean(tensor.momentum)


class AdamDirection(AbstractDirection):
    """The last momentum over the root second moment, Adam's direction:

    $$A_3 = m_3 R, \\qquad R = 1 / \\sqrt{v + 10^{-6}}$$

    Indices count from 1, so $m_3$ is `tensor.momentum[2]`. Bias-corrected only if the
    accumulators are ([`equistar.BiasCorrection`][]), as in [`equistar.AdaptiveSTAR`][].
    Epsilon is inside the root: the denominator is at least $10^{-3}$, where that of Adam,
    $\\sqrt v + 10^{-8}$, is at least $10^{-8}$.

    ??? cite

        ```bibtex
        @inproceedings{kingma2015adam,
            title={Adam: A Method for Stochastic Optimization},
            author={Kingma, Diederik P. and Ba, Jimmy},
            booktitle={International Conference on Learning Representations},
            year={2015},
            eprint={1412.6980},
        }
        ```
    """

    reads: ClassVar[tuple[str, ...]] = ("momentum", "second_moment")

    def __call__(self, tensor: Tensor) -> Float[Array, "*shape"]:
        return tensor.normalised_momentum[-1]


class AdamAggMoDirection(AbstractDirection):
    """The mean of $A_j = m_j R$ over the momenta: STAR's nominal direction.

    $R$ is that of [`equistar.AdamDirection`][]; see [`equistar.STAR`][] for the source.
    """

    reads: ClassVar[tuple[str, ...]] = ("momentum", "second_moment")

    def __call__(self, tensor: Tensor) -> Float[Array, "*shape"]:
        return _mean(tensor.normalised_momentum)


def _mean(arrays: tuple[Array, ...]) -> Array:
    return sum(arrays[1:], arrays[0]) / len(arrays)
