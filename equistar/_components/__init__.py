from .._kinds import check_parts as check_parts
from ._accumulators import (
    AbstractAccumulator as AbstractAccumulator,
    AbstractMovingAverage as AbstractMovingAverage,
    FactoredSecondMoment as FactoredSecondMoment,
    Momentum as Momentum,
    SecondMoment as SecondMoment,
)
from ._adafactor import AdafactorFeatures as AdafactorFeatures, TIMESCALES as TIMESCALES
from ._bank import (
    accumulate as accumulate,
    default_accumulators as default_accumulators,
    read_accumulators as read_accumulators,
    seen_before as seen_before,
    start_accumulators as start_accumulators,
)
from ._bfloat16 import InBFloat16 as InBFloat16
from ._bias_correction import (
    AbstractBiasCorrection as AbstractBiasCorrection,
    BiasCorrection as BiasCorrection,
    NoBiasCorrection as NoBiasCorrection,
)
from ._direction import (
    AbstractDirection as AbstractDirection,
    AdamAggMoDirection as AdamAggMoDirection,
    AdamDirection as AdamDirection,
    AggMoDirection as AggMoDirection,
    GradientDirection as GradientDirection,
    MomentumDirection as MomentumDirection,
)
from ._factors import factored_axes as factored_axes, Factors as Factors
from ._features import (
    AbstractFeatures as AbstractFeatures,
    JoinedFeatures as JoinedFeatures,
    NoFeatures as NoFeatures,
)
from ._gain import AbstractGain as AbstractGain, NoGain as NoGain, TensorGain as TensorGain
from ._given import given as given, given_hidden as given_hidden
from ._hypergradient import (
    HypergradientDescent as HypergradientDescent,
    LogStepSize as LogStepSize,
)
from ._initializer import Initializer as Initializer, release_init as release_init
from ._inputs import check_shapes as check_shapes, Inputs as Inputs
from ._magnitude import (
    AbstractAggregation as AbstractAggregation,
    AbstractMagnitude as AbstractMagnitude,
    MagnitudeController as MagnitudeController,
    NoMagnitudeController as NoMagnitudeController,
    PerElement as PerElement,
    PerTensor as PerTensor,
)
from ._network import (
    AbstractNetwork as AbstractNetwork,
    BlackboxMLP as BlackboxMLP,
    Head as Head,
    NoNetwork as NoNetwork,
)
from ._part import AbstractPart as AbstractPart, means_for as means_for
from ._preconditioner import (
    AbstractPreconditioner as AbstractPreconditioner,
    EMAPreconditioner as EMAPreconditioner,
    GradientScale as GradientScale,
    NoPreconditioner as NoPreconditioner,
)
from ._sample import some_of_each_row as some_of_each_row
from ._scale import (
    AbstractScale as AbstractScale,
    FixedScale as FixedScale,
    LearnedScale as LearnedScale,
)
from ._statistics import TensorStatistics as TensorStatistics
from ._tensor import Means as Means, Tensor as Tensor
from ._terms import (
    AbstractBlackboxTerm as AbstractBlackboxTerm,
    AbstractNominalTerm as AbstractNominalTerm,
    AbstractTerm as AbstractTerm,
    AbstractWeightDecay as AbstractWeightDecay,
    BlackboxTerm as BlackboxTerm,
    NoBlackbox as NoBlackbox,
    NominalTerm as NominalTerm,
    NoNominal as NoNominal,
    NoWeightDecay as NoWeightDecay,
    WeightDecay as WeightDecay,
)
