"""Unrolls, how long their episodes are, and what is optimised over them."""

from ._episodes import (
    AbstractEpisodeLength as AbstractEpisodeLength,
    AbstractStarts as AbstractStarts,
    as_length as as_length,
    ConstantLength as ConstantLength,
    Curriculum as Curriculum,
    draw_length as draw_length,
    expected_length as expected_length,
    GrowingLength as GrowingLength,
    LockStep as LockStep,
    LogUniformLength as LogUniformLength,
    settled as settled,
    Staggered as Staggered,
)
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
from ._toys import (
    InfluenceBalancing as InfluenceBalancing,
    RuggedRegression as RuggedRegression,
)
from ._unroll import (
    AbstractUnroll as AbstractUnroll,
    check_is_unroll as check_is_unroll,
    Completed as Completed,
)
