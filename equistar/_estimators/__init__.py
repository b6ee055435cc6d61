from ._backprop import (
    FullBackprop as FullBackprop,
    TruncatedBackprop as TruncatedBackprop,
)
from ._base import (
    AbstractEstimator as AbstractEstimator,
    MetaGradient as MetaGradient,
)
from ._forward import (
    AbstractDirections as AbstractDirections,
    AllDirections as AllDirections,
    ForwardGradient as ForwardGradient,
    RandomDirections as RandomDirections,
)
from ._full_es import FullES as FullES
from ._noise import (
    AbstractNoise as AbstractNoise,
    IsotropicNoise as IsotropicNoise,
    PerLeafNoise as PerLeafNoise,
)
from ._nres import NRES as NRES
from ._particles import learned as learned, over as over
from ._pes import PES as PES
from ._pes_analytic import PESAnalytic as PESAnalytic
from ._remat import (
    AbstractRematerialisation as AbstractRematerialisation,
    EveryStep as EveryStep,
    NoRematerialisation as NoRematerialisation,
    Segments as Segments,
    WithinMemory as WithinMemory,
)
from ._sampling import (
    AbstractSampling as AbstractSampling,
    AbstractShaping as AbstractShaping,
    AntitheticPairs as AntitheticPairs,
    ClipDifference as ClipDifference,
    ForwardDifference as ForwardDifference,
    NoShaping as NoShaping,
    SignDifference as SignDifference,
)
from ._truncated_es import (
    AbstractCarried as AbstractCarried,
    MeanTheta as MeanTheta,
    PlusMember as PlusMember,
    TruncatedES as TruncatedES,
)
