"""What estimators of pairs share that see an episode in windows."""

import equinox as eqx

from .._unrolls import AbstractEpisodeLength, AbstractStarts, AbstractStepObjective, settled
from ._base import AbstractEstimator
from ._checks import check_windowed
from ._noise import AbstractNoise
from ._pairs import Pairs
from ._sampling import AbstractSampling, AbstractShaping


class AbstractWindowedPairs(AbstractEstimator):
    """Pairs run through episodes in windows, and begin a new one wherever one ends."""

    # In the order of the subclasses' arguments, which type checkers take from here.
    window: eqx.AbstractVar[int]
    pairs: eqx.AbstractVar[int]
    sigma: eqx.AbstractVar[float]
    length: eqx.AbstractVar[AbstractEpisodeLength]
    starts: eqx.AbstractVar[AbstractStarts]
    objective: eqx.AbstractVar[AbstractStepObjective]
    noise: eqx.AbstractVar[AbstractNoise]
    sampling: eqx.AbstractVar[AbstractSampling]
    shaping: eqx.AbstractVar[AbstractShaping]

    def __check_init__(self):
        check_windowed(self.window, self.objective)
        self._pairs.check()

    @property
    def _pairs(self) -> Pairs:
        return Pairs(self.pairs, self.sigma, self.noise, self.sampling, self.shaping)

    @property
    def steps(self) -> int:
        return self.window

    @property
    def warm_up(self) -> int:
        return settled(self.length)
