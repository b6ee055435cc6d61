from ._backprop import (
    FullBackprop as FullBackprop,
    TruncatedBackprop as TruncatedBackprop,
)
from ._base import (
    AbstractEstimator as AbstractEstimator,
    MetaGradient as MetaGradient,
)
from ._full_es import FullES as FullES
from ._nres import NRES as NRES
from ._pes import PES as PES
from ._truncated_es import (
    AbstractCarried as AbstractCarried,
    MeanTheta as MeanTheta,
    PlusMember as PlusMember,
    TruncatedES as TruncatedES,
)
