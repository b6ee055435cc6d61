from ._base import (
    AbstractEstimator as AbstractEstimator,
    MetaGradient as MetaGradient,
)
from ._full_es import FullES as FullES
from ._pes import PES as PES
