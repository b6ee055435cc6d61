"""Learned optimizers that people use and trust."""

import importlib.metadata as _metadata

from . import analysis as analysis, interop as interop, plot as plot, tasks as tasks
from ._checkpoint_file import CheckpointError as CheckpointError
from ._checkpoints import (
    AbstractCheckpoints as AbstractCheckpoints,
    Checkpoints as Checkpoints,
    NoCheckpoints as NoCheckpoints,
)
from ._components import (
    AbstractAccumulator as AbstractAccumulator,
    AbstractAggregation as AbstractAggregation,
    AbstractBiasCorrection as AbstractBiasCorrection,
    AbstractBlackboxTerm as AbstractBlackboxTerm,
    AbstractDirection as AbstractDirection,
    AbstractFeatures as AbstractFeatures,
    AbstractGain as AbstractGain,
    AbstractMagnitude as AbstractMagnitude,
    AbstractMovingAverage as AbstractMovingAverage,
    AbstractNetwork as AbstractNetwork,
    AbstractNominalTerm as AbstractNominalTerm,
    AbstractPart as AbstractPart,
    AbstractPreconditioner as AbstractPreconditioner,
    AbstractScale as AbstractScale,
    AbstractTerm as AbstractTerm,
    AbstractWeightDecay as AbstractWeightDecay,
    AdafactorFeatures as AdafactorFeatures,
    AdamAggMoDirection as AdamAggMoDirection,
    AdamDirection as AdamDirection,
    AggMoDirection as AggMoDirection,
    BiasCorrection as BiasCorrection,
    BlackboxMLP as BlackboxMLP,
    BlackboxTerm as BlackboxTerm,
    default_accumulators as default_accumulators,
    EMAPreconditioner as EMAPreconditioner,
    FactoredSecondMoment as FactoredSecondMoment,
    Factors as Factors,
    FixedScale as FixedScale,
    GradientDirection as GradientDirection,
    GradientScale as GradientScale,
    Head as Head,
    HypergradientDescent as HypergradientDescent,
    InBFloat16 as InBFloat16,
    Inputs as Inputs,
    JoinedFeatures as JoinedFeatures,
    LearnedScale as LearnedScale,
    LogStepSize as LogStepSize,
    MagnitudeController as MagnitudeController,
    Means as Means,
    Momentum as Momentum,
    MomentumDirection as MomentumDirection,
    NoBiasCorrection as NoBiasCorrection,
    NoBlackbox as NoBlackbox,
    NoFeatures as NoFeatures,
    NoGain as NoGain,
    NoMagnitudeController as NoMagnitudeController,
    NominalTerm as NominalTerm,
    NoNetwork as NoNetwork,
    NoNominal as NoNominal,
    NoPreconditioner as NoPreconditioner,
    NoWeightDecay as NoWeightDecay,
    PerElement as PerElement,
    PerTensor as PerTensor,
    release_init as release_init,
    SecondMoment as SecondMoment,
    Tensor as Tensor,
    TensorGain as TensorGain,
    TensorStatistics as TensorStatistics,
    WeightDecay as WeightDecay,
)
from ._devices import particle_mesh as particle_mesh
from ._episodes import (
    AbstractEpisodeLength as AbstractEpisodeLength,
    AbstractStarts as AbstractStarts,
    ConstantLength as ConstantLength,
    Curriculum as Curriculum,
    GrowingLength as GrowingLength,
    LockStep as LockStep,
    LogUniformLength as LogUniformLength,
    Staggered as Staggered,
)
from ._estimators import (
    AbstractCarried as AbstractCarried,
    AbstractDirections as AbstractDirections,
    AbstractEstimator as AbstractEstimator,
    AbstractNoise as AbstractNoise,
    AbstractRematerialisation as AbstractRematerialisation,
    AbstractSampling as AbstractSampling,
    AbstractShaping as AbstractShaping,
    AllDirections as AllDirections,
    AntitheticPairs as AntitheticPairs,
    ClipDifference as ClipDifference,
    EveryStep as EveryStep,
    ForwardDifference as ForwardDifference,
    ForwardGradient as ForwardGradient,
    FullBackprop as FullBackprop,
    FullES as FullES,
    IsotropicNoise as IsotropicNoise,
    MeanTheta as MeanTheta,
    MetaGradient as MetaGradient,
    NoRematerialisation as NoRematerialisation,
    NoShaping as NoShaping,
    NRES as NRES,
    PerLeafNoise as PerLeafNoise,
    PES as PES,
    PESAnalytic as PESAnalytic,
    PlusMember as PlusMember,
    RandomDirections as RandomDirections,
    Segments as Segments,
    SignDifference as SignDifference,
    TruncatedBackprop as TruncatedBackprop,
    TruncatedES as TruncatedES,
    WithinMemory as WithinMemory,
)
from ._evaluation import (
    AbstractBaseline as AbstractBaseline,
    AbstractProgress as AbstractProgress,
    AbstractRateSweep as AbstractRateSweep,
    AbstractStore as AbstractStore,
    compare_evaluations as compare_evaluations,
    DAdaptation as DAdaptation,
    Entry as Entry,
    evaluate as evaluate,
    Evaluation as Evaluation,
    Failure as Failure,
    FolderStore as FolderStore,
    load_evaluation as load_evaluation,
    NoProgress as NoProgress,
    NoStore as NoStore,
    Prodigy as Prodigy,
    Results as Results,
    Run as Run,
    ScheduleFree as ScheduleFree,
    Summary as Summary,
    TunedAdafactor as TunedAdafactor,
    TunedAdam as TunedAdam,
    TunedLion as TunedLion,
    TunedMomentum as TunedMomentum,
    TunedNAdamW as TunedNAdamW,
    TunedOptax as TunedOptax,
    TunedSGD as TunedSGD,
)
from ._feed import AbstractFeed as AbstractFeed
from ._inner_training import (
    InnerTraining as InnerTraining,
    train as train,
    train_init as train_init,
    train_step as train_step,
    TrainResult as TrainResult,
    TrainState as TrainState,
)
from ._logger import (
    AbstractLogger as AbstractLogger,
    Metrics as Metrics,
    NoLogger as NoLogger,
)
from ._meta_gradient import meta_gradient as meta_gradient
from ._meta_losses import (
    AbstractMetaLoss as AbstractMetaLoss,
    AfterUpdate as AfterUpdate,
    HeldOut as HeldOut,
    TrainingBatch as TrainingBatch,
)
from ._meta_step import (
    meta_train_init as meta_train_init,
    meta_train_step as meta_train_step,
    MetaTrainState as MetaTrainState,
)
from ._meta_train import meta_train as meta_train, MetaTrainResult as MetaTrainResult
from ._mixture import (
    AbstractCombination as AbstractCombination,
    Mixture as Mixture,
    NormalisedMean as NormalisedMean,
    WeightedMean as WeightedMean,
)
from ._numerics import count_learned as count_learned
from ._objectives import (
    AbstractObjective as AbstractObjective,
    AbstractStepObjective as AbstractStepObjective,
    EpisodeMeanLoss as EpisodeMeanLoss,
    ExcessLoss as ExcessLoss,
    FinalLoss as FinalLoss,
    LogFinalLoss as LogFinalLoss,
    LogMeanLoss as LogMeanLoss,
    MeanLoss as MeanLoss,
    MinimumLoss as MinimumLoss,
)
from ._optimizers import (
    AbstractCriterion as AbstractCriterion,
    AbstractHyperparameter as AbstractHyperparameter,
    AbstractLearnedOptimizer as AbstractLearnedOptimizer,
    AbstractOptimizer as AbstractOptimizer,
    AdaptiveSTAR as AdaptiveSTAR,
    as_optax as as_optax,
    Blackbox as Blackbox,
    Decay as Decay,
    EnergyDecrease as EnergyDecrease,
    Fixed as Fixed,
    HyperparamController as HyperparamController,
    LearnedOptimizer as LearnedOptimizer,
    LearnedOptimizerState as LearnedOptimizerState,
    OptaxOptimizer as OptaxOptimizer,
    PassedEnergyDecrease as PassedEnergyDecrease,
    Positive as Positive,
    Safeguarded as Safeguarded,
    SafeguardedState as SafeguardedState,
    Scaled as Scaled,
    ScaledState as ScaledState,
    Stacked as Stacked,
    STAR as STAR,
    StepBound as StepBound,
)
from ._outer import blackbox_mask as blackbox_mask, default_outer as default_outer
from ._pretrained import (
    load_pretrained as load_pretrained,
    PRETRAINED as PRETRAINED,
    pretrained_provenance as pretrained_provenance,
)
from ._relative import Relative as Relative, RelativeFeed as RelativeFeed
from ._results import RESULTS as RESULTS
from ._serialisation import (
    load as load,
    load_header as load_header,
    save as save,
    WeightsError as WeightsError,
)
from ._slab_feed import SlabFeed as SlabFeed
from ._toy_unrolls import (
    InfluenceBalancing as InfluenceBalancing,
    RuggedRegression as RuggedRegression,
)
from ._trainable import all_but as all_but, only as only
from ._unroll import AbstractUnroll as AbstractUnroll


__version__ = _metadata.version("equistar")
