"""What estimators share that see an episode in windows."""

import equinox as eqx

from .._episodes import AbstractEpisodeLength, AbstractStarts, settled
from .._kinds import check_count
from .._objectives import AbstractStepObjective
from ._base import AbstractEstimator
from ._checks import check_windowed
from ._noise import AbstractNoise
from ._pairs import Pairs
from ._sampling import AbstractSampling, AbstractShaping


class AbstractWindowed(AbstractEstimator):
    """Particles run through episodes in windows, and begin a new one wherever one ends."""

    window: eqx.AbstractVar[int]
    length: eqx.AbstractVar[AbstractEpisodeLength]
    starts: eqx.AbstractVar[AbstractStarts]
    objective: eqx.AbstractVar[AbstractStepObjective]

    def __check_init__(self):
        check_windowed(self.window, self.objective)

    @property
    def steps(self) -> int:
        return self.window

    @property
    def warm_up(self) -> int:
        return settled(self.length)


class AbstractWindowedPairs(AbstractWindowed):
    """Each particle is a pair, whose members differ by noise alone."""

    pairs: eqx.AbstractVar[int]
    sigma: eqx.AbstractVar[float]
    noise: eqx.AbstractVar[AbstractNoise]
    sampling: eqx.AbstractVar[AbstractSampling]
    shaping: eqx.AbstractVar[AbstractShaping]

    def __check_init__(self):
        self._pairs.check()

    @property
    def _pairs(self) -> Pairs:
        return Pairs(self.pairs, self.sigma, self.noise, self.sampling, self.shaping)


class AbstractWindowedParticles(AbstractWindowed):
    """Each particle is one episode, and derivatives are taken of it."""

    particles: eqx.AbstractVar[int]

    def __check_init__(self):
        check_count(self.particles, "particles")
