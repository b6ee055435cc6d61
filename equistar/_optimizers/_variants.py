"""The typed variants: STAR, the blackbox optimizer, the hyperparameter controller."""

import jax.nn.initializers as jinit
import jax.random as jr
from jaxtyping import PRNGKeyArray

from .._components import (
    AbstractAccumulator,
    AbstractAggregation,
    AbstractDirection,
    AbstractPreconditioner,
    AbstractScale,
    AbstractWeightDecay,
    AdafactorFeatures,
    AdamAggMoDirection,
    BlackboxMLP,
    BlackboxTerm,
    default_accumulators,
    EMAPreconditioner,
    Initializer,
    MagnitudeController,
    NoBlackbox,
    NoGain,
    NominalTerm,
    NoNominal,
    NoPreconditioner,
    NoWeightDecay,
    PerElement,
    read_accumulators,
)
from .._kinds import check_key
from ._learned import AbstractLearnedOptimizer


class STAR(AbstractLearnedOptimizer):
    """The stable and better-behaved learned optimizer of Harrison et al. (2022).

    The sum of a preconditioned blackbox term and a controlled nominal term:

    $$p \\leftarrow p - \\beta_3\\,d\\,e^{\\beta_4 a_b} R
    - \\beta_1\\,e^{\\beta_2 a_n}\\,mean_j\\,A_j$$

    It has 202 meta-learned numbers with the default arguments. The direction head starts at
    zero, so a fresh one *is* its nominal optimizer, up to the near-constant factor
    $e^{\\beta_2 a_n}$: it trains without meta-training, and does not move where gradients
    vanish.

    ??? cite

        ```bibtex
        @inproceedings{harrison2022closer,
            title={A Closer Look at Learned Optimization: Stability, Robustness, and
                   Inductive Biases},
            author={Harrison, James and Metz, Luke and Sohl-Dickstein, Jascha},
            booktitle={Advances in Neural Information Processing Systems},
            year={2022},
            eprint={2209.11208},
        }
        ```
    """

    accumulators: dict[str, AbstractAccumulator]
    features: AdafactorFeatures
    network: BlackboxMLP
    blackbox: BlackboxTerm
    nominal: NominalTerm
    weight_decay: AbstractWeightDecay
    gain: NoGain

    def __init__(
        self,
        *,
        key: PRNGKeyArray,
        direction: AbstractDirection = AdamAggMoDirection(),
        preconditioner: AbstractPreconditioner = EMAPreconditioner(),
        aggregation: AbstractAggregation = PerElement(),
        weight_decay: AbstractWeightDecay = NoWeightDecay(),
        nominal_scale: float | AbstractScale = 1e-3,
        blackbox_scale: float | AbstractScale = 1e-3,
        magnitude_scale: float | AbstractScale = 1e-3,
        width: int = 4,
        direction_init: Initializer = jinit.zeros,
    ):
        """**Arguments:**

        - `key`: a PRNG key.
        - `direction`: the nominal direction.
        - `preconditioner`: factor on the blackbox term's output.
        - `aggregation`: of both magnitudes, `PerElement()` or `PerTensor()`.
        - `weight_decay`: an inner weight-decay term.
        - `nominal_scale`: $\\beta_1$, the nominal learning rate.
        - `blackbox_scale`: $\\beta_3$.
        - `magnitude_scale`: $\\beta_2 = \\beta_4$, on both log-magnitudes. If learned, each
            has one of its own: they start equal and are meta-learned apart.
        - `width`: hidden units in each of the two layers.
        - `direction_init`: initialiser of the direction head; `equistar.release_init`
            is the released implementation's, with which some seeds diverge at once.

        **Raises:**

        `ValueError` if an argument is not of its kind, or a part reads an accumulator that
        STAR has not.
        """
        check_key(key)
        trunk, blackbox, blackbox_magnitude, nominal_magnitude = jr.split(key, 4)
        self.features = AdafactorFeatures()
        self.network = BlackboxMLP(width=width, key=trunk)
        self.blackbox = BlackboxTerm(
            width,
            MagnitudeController(
                width, magnitude_scale, aggregation, key=blackbox_magnitude
            ),
            preconditioner,
            blackbox_scale,
            direction_init,
            key=blackbox,
        )
        self.nominal = NominalTerm(
            direction,
            MagnitudeController(width, magnitude_scale, aggregation, key=nominal_magnitude),
            nominal_scale,
        )
        self.weight_decay = weight_decay
        self.gain = NoGain()
        self.accumulators = read_accumulators(default_accumulators(), *self._readers)


class Blackbox(AbstractLearnedOptimizer):
    """The blackbox optimizer `small_fc_lopt` of Metz et al. (2022).

    $$p \\leftarrow p - \\beta_3\\,d\\,e^{\\beta_4 a_b}$$

    It has 197 meta-learned numbers with the default arguments. A fresh one does not move,
    because the direction head starts at zero.

    ??? cite

        ```bibtex
        @inproceedings{metz2022practical,
            title={Practical Tradeoffs between Memory, Compute, and Performance in
                   Learned Optimizers},
            author={Metz, Luke and Freeman, C. Daniel and Harrison, James and
                    Maheswaranathan, Niru and Sohl-Dickstein, Jascha},
            booktitle={Conference on Lifelong Learning Agents},
            year={2022},
        }
        ```
    """

    accumulators: dict[str, AbstractAccumulator]
    features: AdafactorFeatures
    network: BlackboxMLP
    blackbox: BlackboxTerm
    nominal: NoNominal
    weight_decay: AbstractWeightDecay
    gain: NoGain

    def __init__(
        self,
        *,
        key: PRNGKeyArray,
        preconditioner: AbstractPreconditioner = NoPreconditioner(),
        aggregation: AbstractAggregation = PerElement(),
        weight_decay: AbstractWeightDecay = NoWeightDecay(),
        blackbox_scale: float | AbstractScale = 1e-3,
        magnitude_scale: float | AbstractScale = 1e-3,
        width: int = 4,
        direction_init: Initializer = jinit.zeros,
    ):
        """**Arguments:** as for [`equistar.STAR`][], without the nominal term's.

        **Raises:** as [`equistar.STAR`][].
        """
        check_key(key)
        trunk, blackbox, magnitude = jr.split(key, 3)
        self.features = AdafactorFeatures()
        self.network = BlackboxMLP(width=width, key=trunk)
        self.blackbox = BlackboxTerm(
            width,
            MagnitudeController(width, magnitude_scale, aggregation, key=magnitude),
            preconditioner,
            blackbox_scale,
            direction_init,
            key=blackbox,
        )
        self.nominal = NoNominal()
        self.weight_decay = weight_decay
        self.gain = NoGain()
        self.accumulators = read_accumulators(default_accumulators(), *self._readers)


class HyperparamController(AbstractLearnedOptimizer):
    """Learns the per-element learning rate of a hand-made direction, and nothing else.

    $$p \\leftarrow p - \\beta_1\\,e^{\\beta_2 a_n}\\,mean_j\\,A_j$$

    It has 192 meta-learned numbers with the default arguments. See [`equistar.STAR`][] for
    the source.
    """

    accumulators: dict[str, AbstractAccumulator]
    features: AdafactorFeatures
    network: BlackboxMLP
    blackbox: NoBlackbox
    nominal: NominalTerm
    weight_decay: AbstractWeightDecay
    gain: NoGain

    def __init__(
        self,
        *,
        key: PRNGKeyArray,
        direction: AbstractDirection = AdamAggMoDirection(),
        aggregation: AbstractAggregation = PerElement(),
        weight_decay: AbstractWeightDecay = NoWeightDecay(),
        nominal_scale: float | AbstractScale = 1e-3,
        magnitude_scale: float | AbstractScale = 1e-3,
        width: int = 4,
    ):
        """**Arguments:** as for [`equistar.STAR`][], without the blackbox term's.

        **Raises:** as [`equistar.STAR`][].
        """
        check_key(key)
        trunk, magnitude = jr.split(key)
        self.features = AdafactorFeatures()
        self.network = BlackboxMLP(width=width, key=trunk)
        self.blackbox = NoBlackbox()
        self.nominal = NominalTerm(
            direction,
            MagnitudeController(width, magnitude_scale, aggregation, key=magnitude),
            nominal_scale,
        )
        self.weight_decay = weight_decay
        self.gain = NoGain()
        self.accumulators = read_accumulators(default_accumulators(), *self._readers)
