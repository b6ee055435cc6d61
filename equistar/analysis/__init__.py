"""Stability, step sizes and meta-gradients, analysed: closed forms, bounds, spectra."""

from ._compare_estimators import (
    compare_estimators as compare_estimators,
    EstimatorComparison as EstimatorComparison,
    EstimatorReport as EstimatorReport,
)
from ._health import (
    Health as Health,
    meta_gradient_health as meta_gradient_health,
    MetaGradientHealth as MetaGradientHealth,
)
from ._invariances import (
    Invariances as Invariances,
    invariances as invariances,
)
from ._least_squares import (
    descent_iterates as descent_iterates,
    draw_least_squares as draw_least_squares,
    LeastSquares as LeastSquares,
)
from ._linear_optimizer import LinearOptimizer as LinearOptimizer
from ._margins import (
    disturbed_margin as disturbed_margin,
    heavy_ball_margin as heavy_ball_margin,
    linear_margin as linear_margin,
    Margin as Margin,
    momentum_margin as momentum_margin,
    preconditioned_margin as preconditioned_margin,
)
from ._noisy_quadratic import (
    NoisyQuadratic as NoisyQuadratic,
    star_quadratic as star_quadratic,
)
from ._references import (
    AbstractReference as AbstractReference,
    ExactGradient as ExactGradient,
    LongRun as LongRun,
)
from ._renormalised import (
    RenormalisedState as RenormalisedState,
    RenormalisedUnroll as RenormalisedUnroll,
)
from ._spectrum import (
    joint_spectrum as joint_spectrum,
    JointSpectrum as JointSpectrum,
    spectrum_along_training as spectrum_along_training,
)
from ._step_size import (
    SignedLog as SignedLog,
    StepSizeProblem as StepSizeProblem,
)
