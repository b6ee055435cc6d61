from ._adaptive import AdaptiveSTAR as AdaptiveSTAR
from ._assembled import LearnedOptimizer as LearnedOptimizer
from ._base import AbstractOptimizer as AbstractOptimizer
from ._frozen import frozen as frozen, FrozenArray as FrozenArray
from ._learned import (
    AbstractLearnedOptimizer as AbstractLearnedOptimizer,
    LearnedOptimizerState as LearnedOptimizerState,
)
from ._optax import (
    AbstractHyperparameter as AbstractHyperparameter,
    as_optax as as_optax,
    Decay as Decay,
    Fixed as Fixed,
    OptaxOptimizer as OptaxOptimizer,
    Positive as Positive,
)
from ._safeguarded import (
    AbstractCriterion as AbstractCriterion,
    EnergyDecrease as EnergyDecrease,
    PassedEnergyDecrease as PassedEnergyDecrease,
    Safeguarded as Safeguarded,
    SafeguardedState as SafeguardedState,
    StepBound as StepBound,
)
from ._sampled import SampledMeans as SampledMeans
from ._scaled import Scaled as Scaled, ScaledState as ScaledState
from ._stacked import Stacked as Stacked
from ._trees import check_params as check_params
from ._variants import (
    Blackbox as Blackbox,
    HyperparamController as HyperparamController,
    STAR as STAR,
)
