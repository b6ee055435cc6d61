"""The terms of an update: blackbox, nominal and weight decay."""

import abc

import jax.nn.initializers as jinit
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from ._direction import AbstractDirection, AdamAggMoDirection
from ._given import given, given_scale
from ._initializer import Initializer
from ._magnitude import AbstractMagnitude, NoMagnitudeController
from ._network import Head
from ._part import AbstractPart, asked
from ._preconditioner import AbstractPreconditioner, EMAPreconditioner
from ._scale import AbstractScale, as_scale
from ._tensor import Tensor


class AbstractTerm(AbstractPart):
    """A term of the update, to be subtracted from the parameters."""

    @abc.abstractmethod
    def __call__(self, tensor: Tensor, hidden: tuple[Array, ...]) -> Array:
        """The term: an array that broadcasts to the tensor's shape.

        **Arguments:**

        - `tensor`: the parameter, its gradient and accumulators.
        - `hidden`: the network's hidden units, each an array of the tensor's shape.
        """


class AbstractBlackboxTerm(AbstractTerm):
    """A term whose direction the network writes."""


class NoBlackbox(AbstractBlackboxTerm):
    """No blackbox term."""

    def __call__(self, tensor: Tensor, hidden: tuple[Array, ...]) -> Array:
        return jnp.zeros((), tensor.param.dtype)


class BlackboxTerm(AbstractBlackboxTerm):
    """The network's own step, $\\beta_3\\,d\\,\\exp(\\beta_4 a_b)\\,R$.

    $d$ is a head of the network, $\\exp(\\beta_4 a_b)$ the magnitude and $R$ the
    preconditioner. See [`equistar.STAR`][] for the source.
    """

    direction: Head
    magnitude: AbstractMagnitude
    preconditioner: AbstractPreconditioner
    scale: AbstractScale

    def __init__(
        self,
        width: int = 4,
        magnitude: AbstractMagnitude = NoMagnitudeController(),
        preconditioner: AbstractPreconditioner = EMAPreconditioner(),
        scale: float | AbstractScale = 1e-3,
        init: Initializer = jinit.zeros,
        *,
        key: PRNGKeyArray,
    ):
        """**Arguments:**

        - `width`: hidden units of the network.
        - `magnitude`: the learned magnitude, or `NoMagnitudeController()`.
        - `preconditioner`: factor on the output, or `NoPreconditioner()`.
        - `scale`: $\\beta_3$.
        - `init`: initialiser of the direction head. The default starts it at zero, so
            that a fresh optimizer takes its nominal steps only; `release_init` is the
            released implementation's, under which some seeds diverge at once.
        - `key`: a PRNG key.

        **Raises:**

        `ValueError` if a part or `key` is not of its kind, `width` is not a whole number of
        at least 1, `scale` is no finite number and no scale, or `init` no initialiser.
        """
        self.direction = Head(width, init, key=key)
        self.magnitude = magnitude
        self.preconditioner = preconditioner
        self.scale = as_scale(scale)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.preconditioner.reads)

    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        return asked(self.preconditioner, tensor)

    def __call__(self, tensor: Tensor, hidden: tuple[Array, ...]) -> Array:
        shape = tensor.param.shape
        step = self.direction(hidden) * given("magnitude", self.magnitude, shape, hidden)
        factor = given("preconditioner", self.preconditioner, shape, tensor)
        return given_scale(self.scale) * step * factor


class AbstractNominalTerm(AbstractTerm):
    """A term whose direction is a hand-made optimizer's."""


class NoNominal(AbstractNominalTerm):
    """No nominal term."""

    def __call__(self, tensor: Tensor, hidden: tuple[Array, ...]) -> Array:
        return jnp.zeros((), tensor.param.dtype)


class NominalTerm(AbstractNominalTerm):
    """A descent term, $\\beta_1 \\exp(\\beta_2 a_n)$ times a nominal direction.

    It biases the learned dynamics towards descent; see the STAR paper, section 4.
    """

    direction: AbstractDirection
    magnitude: AbstractMagnitude
    scale: AbstractScale

    def __init__(
        self,
        direction: AbstractDirection = AdamAggMoDirection(),
        magnitude: AbstractMagnitude = NoMagnitudeController(),
        scale: float | AbstractScale = 1e-3,
    ):
        """**Arguments:**

        - `direction`: the nominal direction, not yet multiplied by a step size.
        - `magnitude`: the learned magnitude $\\exp(\\beta_2 a_n)$, or
            `NoMagnitudeController()`.
        - `scale`: $\\beta_1$, the nominal learning rate; `LearnedScale(1e-3)` makes it
            one more meta-learned number.

        **Raises:**

        `ValueError` if a part is not of its kind, or `scale` is no finite number and no
        scale.
        """
        self.direction = direction
        self.magnitude = magnitude
        self.scale = as_scale(scale)

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(self.direction.reads)

    def averaged(self, tensor: Tensor) -> dict[str, Array]:
        return asked(self.direction, tensor)

    def __call__(self, tensor: Tensor, hidden: tuple[Array, ...]) -> Array:
        shape = tensor.param.shape
        direction = given("direction", self.direction, shape, tensor)
        magnitude = given("magnitude", self.magnitude, shape, hidden)
        return given_scale(self.scale) * magnitude * direction


class AbstractWeightDecay(AbstractTerm):
    """A term that shrinks the parameters."""


class NoWeightDecay(AbstractWeightDecay):
    """No weight decay."""

    def __call__(self, tensor: Tensor, hidden: tuple[Array, ...]) -> Array:
        return jnp.zeros((), tensor.param.dtype)


class WeightDecay(AbstractWeightDecay):
    """Decoupled weight decay, $\\lambda \\exp(\\beta_5 a_r)\\,p$.

    $p$ is the parameter and $a_r$ a head of the network. Not to be confused with the weight
    decay of meta-training ([`equistar.default_outer`][]), which acts on the optimizer's own
    weights.

    ??? cite

        ```bibtex
        @inproceedings{loshchilov2019decoupled,
            title={Decoupled Weight Decay Regularization},
            author={Loshchilov, Ilya and Hutter, Frank},
            booktitle={International Conference on Learning Representations},
            year={2019},
            eprint={1711.05101},
        }
        ```
    """

    rate: AbstractScale
    magnitude: AbstractMagnitude

    def __init__(
        self,
        rate: float | AbstractScale,
        magnitude: AbstractMagnitude = NoMagnitudeController(),
    ):
        """**Arguments:**

        - `rate`: $\\lambda$, the share of a parameter taken away in each update.
        - `magnitude`: the learned magnitude $\\exp(\\beta_5 a_r)$, or
            `NoMagnitudeController()`.

        **Raises:**

        `ValueError` if `magnitude` is not of its kind, or `rate` is no finite number and no
        scale.
        """
        self.rate = as_scale(rate)
        self.magnitude = magnitude

    def __call__(self, tensor: Tensor, hidden: tuple[Array, ...]) -> Array:
        magnitude = given("magnitude", self.magnitude, tensor.param.shape, hidden)
        return given_scale(self.rate) * magnitude * tensor.param
