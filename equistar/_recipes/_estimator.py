"""How the meta-gradient is estimated."""

from dataclasses import dataclass
from typing import Literal

from .._estimators import (
    AbstractEstimator,
    FullBackprop,
    FullES,
    NRES,
    PES,
    PESAnalytic,
    TruncatedBackprop,
    TruncatedES,
)
from .._unrolls import (
    AbstractEpisodeLength,
    AbstractObjective,
    AbstractStepObjective,
    ConstantLength,
    EpisodeMeanLoss,
    ExcessLoss,
    FinalLoss,
    LogFinalLoss,
    LogMeanLoss,
    LogUniformLength,
    MeanLoss,
    MinimumLoss,
)


_WINDOWED = {
    "pes": PES,
    "nres": NRES,
    "pes-analytic": PESAnalytic,
    "truncated-es": TruncatedES,
}
_OBJECTIVES: dict[str, AbstractObjective] = {
    "mean": MeanLoss(),
    "episode-mean": EpisodeMeanLoss(),
    "final": FinalLoss(),
    "log-final": LogFinalLoss(),
    "log-mean": LogMeanLoss(),
    "excess": ExcessLoss(),
    "minimum": MinimumLoss(),
}

_Name = Literal[
    "pes",
    "nres",
    "pes-analytic",
    "truncated-es",
    "full-es",
    "truncated-backprop",
    "full-backprop",
]


@dataclass(frozen=True)
class EstimatorRecipe:
    """The estimator of the meta-gradient."""

    estimator: _Name = "pes"
    """pes and nres are unbiased from short windows, the full ones run whole episodes, and
    truncated ones are biased, for comparison; back-propagation is slow."""
    window: int = 50
    """Inner steps between two meta-gradient estimates; not for the full ones."""
    pairs: int = 8
    """Antithetic pairs of particles, on each task; single ones in back-propagation."""
    sigma: float = 0.01
    """Standard deviation of the perturbation of the meta-parameters."""
    length: int = 500
    """Inner steps of an episode: what the optimizer is meta-trained for."""
    shortest: int = 0
    """Above 0, episodes have random lengths, log-uniform from here to --length."""
    objective: Literal[
        "mean", "episode-mean", "final", "log-final", "log-mean", "excess", "minimum"
    ] = "mean"
    """What of an episode's losses is minimised; log-mean, excess and minimum need a full
    estimator. excess is what is above the --references."""

    def build(self) -> AbstractEstimator:
        """The estimator."""
        length, objective = self.episode_length(), _OBJECTIVES[self.objective]
        if self.estimator == "full-es":
            return FullES(length, self.pairs, self.sigma, objective)
        if self.estimator == "full-backprop":
            return FullBackprop(length, self.pairs, objective)
        if not isinstance(objective, AbstractStepObjective):
            raise ValueError(
                f"The objective {self.objective} needs whole episodes: use full-es or "
                "full-backprop, or another objective, say mean."
            )
        if self.estimator == "truncated-backprop":
            return TruncatedBackprop(self.window, self.pairs, length, objective=objective)
        make = _WINDOWED[self.estimator]
        return make(self.window, self.pairs, self.sigma, length, objective=objective)

    def episode_length(self) -> AbstractEpisodeLength:
        """The length of episodes, constant or drawn."""
        if self.shortest:
            return LogUniformLength(self.shortest, self.length)
        return ConstantLength(self.length)

    @property
    def members(self) -> int:
        """Networks that each particle trains."""
        return 1 if self.estimator.endswith("backprop") else 2
