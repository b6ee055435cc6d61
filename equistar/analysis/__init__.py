"""Stability, step sizes and meta-gradients, analysed: closed forms, bounds, spectra."""

from ._compare_estimators import (
    AbstractReference as AbstractReference,
    compare_estimators as compare_estimators,
    EstimatorComparison as EstimatorComparison,
    EstimatorReport as EstimatorReport,
    ExactGradient as ExactGradient,
    LongRun as LongRun,
)
from ._health import (
    Health as Health,
    meta_gradient_health as meta_gradient_health,
    MetaGradientHealth as MetaGradientHealth,
)
