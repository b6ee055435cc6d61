"""What estimators have in common that see windows, or pairs."""

import equinox as eqx

from .._episodes import AbstractEpisodeLength
from .._objectives import AbstractStepObjective
from ._base import AbstractEstimator
from ._checks import check_windowed
from ._noise import AbstractNoise
from ._pairs import Pairs
from ._sampling import AbstractSampling, AbstractShaping


class AbstractWindowed(AbstractEstimator):
    """An estimator that sees an episode window by window."""

    window: eqx.AbstractVar[int]
    length: eqx.AbstractVar[AbstractEpisodeLength]
    objective: eqx.AbstractVar[AbstractStepObjective]

    def __check_init__(self) -> None:
        check_windowed(self.window, self.objective)

    @property
    def steps(self) -> int:
        return self.window

    @property
    def warm_up(self) -> int:
        return self.length.maximum


class AbstractPerturbed(AbstractEstimator):
    """An estimator that perturbs the meta-parameters in pairs."""

    pairs: eqx.AbstractVar[int]
    sigma: eqx.AbstractVar[float]
    noise: eqx.AbstractVar[AbstractNoise]
    sampling: eqx.AbstractVar[AbstractSampling]
    shaping: eqx.AbstractVar[AbstractShaping]

    def __check_init__(self) -> None:
        self._pairs.check()

    @property
    def _pairs(self) -> Pairs:
        return Pairs(self.pairs, self.sigma, self.noise, self.sampling, self.shaping)
