"""The experiments of the papers, by the name that `equistar reproduce` knows."""

from ._base import (
    AbstractExperiment as AbstractExperiment,
    Claim as Claim,
    Reproduction as Reproduction,
)
from ._pes_influence_balancing import InfluenceBalancing
from ._pes_regression import LearningRateSchedule


EXPERIMENTS: dict[str, AbstractExperiment] = {
    "pes-influence-balancing": InfluenceBalancing(),
    "pes-regression": LearningRateSchedule(),
}
