"""Evolution strategies over whole episodes."""

import equinox as eqx
import jax.random as jr
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from .._kinds import as_int
from .._unrolls import (
    AbstractEpisodeLength,
    AbstractObjective,
    AbstractUnroll,
    as_length,
    MeanLoss,
)
from ._base import MetaGradient
from ._noise import AbstractNoise, IsotropicNoise
from ._pairs import as_sigma, Pairs
from ._particles import summarise
from ._rollout import particle_keys, whole_episodes
from ._sampling import AbstractSampling, AbstractShaping, AntitheticPairs, NoShaping
from ._whole import AbstractWhole


class FullES(AbstractWhole):
    """Evolution strategies: antithetic pairs run through whole, fresh episodes.

    $$g = \\frac{1}{N} \\sum_i \\epsilon_i \\frac{L^+_i - L^-_i}{2 \\sigma^2}$$

    with $L$ the objective of an episode and $\\epsilon_i \\sim N(0, \\sigma^2 I)$. Unbiased
    for the gradient of the objective smoothed by $N(0, \\sigma^2 I)$.

    **Arguments:**

    - `length`: steps of an episode; a number, or lengths to draw from.
    - `pairs`: $N$, antithetic pairs of episodes.
    - `sigma`: $\\sigma$, standard deviation of the noise, in units of `theta`.
    - `objective`: any [`equistar.AbstractObjective`][].
    - `noise`, `sampling`, `shaping`: as for [`equistar.PES`][].

    **Raises:**

    `ValueError` if an argument is not of its kind, `pairs` is below 1, or `sigma` is not
    positive and finite.

    ??? cite

        ```bibtex
        @article{salimans2017evolution,
            title={Evolution Strategies as a Scalable Alternative to Reinforcement
                   Learning},
            author={Salimans, Tim and Ho, Jonathan and Chen, Xi and Sidor, Szymon and
                    Sutskever, Ilya},
            year={2017},
            eprint={1703.03864},
        }
        ```
    """

    length: AbstractEpisodeLength = eqx.field(converter=as_length)
    pairs: int = eqx.field(default=8, converter=as_int, static=True)
    sigma: float = eqx.field(default=0.01, static=True, converter=as_sigma)
    objective: AbstractObjective = MeanLoss()
    noise: AbstractNoise = IsotropicNoise()
    sampling: AbstractSampling = AntitheticPairs()
    shaping: AbstractShaping = NoShaping()

    def __check_init__(self):
        self._pairs.check()

    @property
    def _pairs(self) -> Pairs:
        return Pairs(self.pairs, self.sigma, self.noise, self.sampling, self.shaping)

    def _of_episodes(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        meta_step: Int[Array, ""],
        *,
        key: PRNGKeyArray,
    ) -> MetaGradient:
        noise_key, data_key = jr.split(key)
        noise = self._pairs.draw(theta, key=noise_key)
        members = self._pairs.perturb(theta, noise)
        keys = particle_keys(data_key, self.pairs)
        values, healthy = whole_episodes(
            unroll, members, self.length, self.objective, meta_step, keys
        )
        contributions = self._pairs.gradients(
            theta, (self._pairs.difference(values), noise)
        )
        return summarise(contributions, values, healthy)
