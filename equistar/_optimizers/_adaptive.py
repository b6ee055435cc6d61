"""The variant that is pretrained as `star-best`."""

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
    BiasCorrection,
    BlackboxMLP,
    BlackboxTerm,
    FactoredSecondMoment,
    GradientScale,
    HypergradientDescent,
    Initializer,
    JoinedFeatures,
    LogStepSize,
    MagnitudeController,
    Momentum,
    NominalTerm,
    NoWeightDecay,
    PerElement,
    read_accumulators,
    SecondMoment,
    TensorGain,
    TensorStatistics,
)
from .._kinds import check_key
from ._learned import AbstractLearnedOptimizer


# What two meta-trainings on many small tasks agreed upon, rounded. The gain, by statistic:
# that of the class's docstring, and last the step size that hypergradient descent finds.
_START = 0.58, 0.5, -1.6, -0.83, 0.98, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0
_MOMENTA = 0.6, 0.965, 0.998

# Longer ones would bring inputs that episodes of 2,000 steps have not shown.
_TIMESCALES = (1, 3, 10, 30, 100, 300, 1_000)


class AdaptiveSTAR(AbstractLearnedOptimizer):
    """STAR for many tasks, with a fixed point and a step size for each tensor. Ours.

    $$p \\leftarrow p - e^{s\\,w \\cdot x}\\,(\\beta_3\\,d\\,e^{\\beta_4 a_b}\\,rms(A_1)
    + \\beta_1\\,e^{\\beta_2 a_n}\\,mean_j\\,A_j)$$

    It differs from [`equistar.STAR`][] in these points:

    - The blackbox term is scaled by the root mean square of $A_1$ over the tensor
      ([`equistar.GradientScale`][]), so it vanishes where gradients vanish.
    - Each tensor has a gain ([`equistar.TensorGain`][]), because one task needs steps a
      hundred times as large as another. The gain is log-linear in statistics $x$ of the
      tensor, which the network reads as well.
    - One of the statistics is a step size that is learned during the training itself
      ([`equistar.HypergradientDescent`][]). It grows while steps are too small, and falls
      when only noise is left.
    - Averages are bias-corrected, so that the first steps are like the later ones.
    - No time scale is longer than 1,000 steps, and the magnitudes can change noticeably.

    A fresh one is AggMo on Adam's direction. Its learning rate is $1.2\\,\\beta_1$ for a
    vector of 1,000 entries and $1.9\\,\\beta_1$ for a matrix of as many entries of size
    0.1. It falls with the power 0.18 of the number of entries, and for matrices it rises
    with the power 0.43 of their size; kernels of convolutions take a fifth of that. Two
    meta-trainings on many small tasks agreed on these numbers and on the initial decays.
    """

    accumulators: dict[str, AbstractAccumulator]
    features: JoinedFeatures
    network: BlackboxMLP
    blackbox: BlackboxTerm
    nominal: NominalTerm
    weight_decay: AbstractWeightDecay
    gain: TensorGain

    def __init__(
        self,
        *,
        key: PRNGKeyArray,
        direction: AbstractDirection = AdamAggMoDirection(),
        preconditioner: AbstractPreconditioner = GradientScale(),
        aggregation: AbstractAggregation = PerElement(),
        weight_decay: AbstractWeightDecay = NoWeightDecay(),
        nominal_scale: float | AbstractScale = 1e-2,
        blackbox_scale: float | AbstractScale = 1e-2,
        magnitude_scale: float | AbstractScale = 0.1,
        width: int = 4,
        direction_init: Initializer = jinit.zeros,
    ):
        """**Arguments:** as for [`equistar.STAR`][]."""
        check_key(key)
        trunk, blackbox, blackbox_magnitude, nominal_magnitude = jr.split(key, 4)
        magnitude = lambda k: MagnitudeController(
            width, magnitude_scale, aggregation, key=k
        )
        statistics = JoinedFeatures(TensorStatistics(), LogStepSize())
        self.features = JoinedFeatures(AdafactorFeatures(_TIMESCALES), statistics)
        self.network = BlackboxMLP(28 + len(_TIMESCALES) + len(_START), width, key=trunk)
        self.blackbox = BlackboxTerm(
            width,
            magnitude(blackbox_magnitude),
            preconditioner,
            blackbox_scale,
            direction_init,
            key=blackbox,
        )
        self.nominal = NominalTerm(direction, magnitude(nominal_magnitude), nominal_scale)
        self.weight_decay = weight_decay
        self.gain = TensorGain(statistics, _START)
        corrected = BiasCorrection()
        bank = {
            "momentum": Momentum(_MOMENTA, correction=corrected),
            "second_moment": SecondMoment(0.997, correction=corrected),
            "factored": FactoredSecondMoment(correction=corrected),
            "log_step_size": HypergradientDescent(rate=0.1, threshold=0.07),
        }
        self.accumulators = read_accumulators(bank, *self._readers)
