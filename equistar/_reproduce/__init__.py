"""The experiments of the papers, by the name that `equistar reproduce` knows."""

from ._base import (
    AbstractExperiment as AbstractExperiment,
    Claim as Claim,
    Reproduction as Reproduction,
)


EXPERIMENTS: dict[str, AbstractExperiment] = {}
