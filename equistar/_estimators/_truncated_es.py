"""Evolution strategies on truncated windows."""

import abc

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._kinds import as_int
from .._unrolls import (
    AbstractEpisodeLength,
    AbstractStarts,
    AbstractStepObjective,
    AbstractUnroll,
    as_length,
    ConstantLength,
    MeanLoss,
    Staggered,
)
from ._base import MetaGradient
from ._checks import check_state
from ._noise import AbstractNoise, IsotropicNoise
from ._own_parts import check_run
from ._pairs import as_sigma
from ._particles import are_finite, learned, same_members, summarise
from ._rollout import advance, particle_keys, Particles, start
from ._sampling import AbstractSampling, AbstractShaping, AntitheticPairs, NoShaping
from ._windowed import AbstractWindowedPairs


class AbstractCarried(eqx.Module):
    """Which state both members of a pair start the next window from."""

    @abc.abstractmethod
    def members(self, theta: PyTree, pairs: PyTree) -> PyTree:
        """All members of a particle: the pair, and whoever else must run."""

    @abc.abstractmethod
    def carried(self, member: Array) -> Array:
        """From an array with an axis of members, the one that is carried on."""


class PlusMember(AbstractCarried):
    """The + member's, as in the released implementation of the STAR paper."""

    def members(self, theta: PyTree, pairs: PyTree) -> PyTree:
        return pairs

    def carried(self, member: Array) -> Array:
        return member[:, 0]


class MeanTheta(AbstractCarried):
    """That of the unperturbed `theta`, which runs beside each pair: half as much again."""

    def members(self, theta: PyTree, pairs: PyTree) -> PyTree:
        arrays, rest = eqx.partition(pairs, eqx.is_inexact_array)
        join = lambda pair, mean: jnp.concatenate(
            [pair, jnp.broadcast_to(mean, (len(pair), 1, *mean.shape))], axis=1
        )
        return eqx.combine(jtu.tree_map(join, arrays, learned(theta)), rest)

    def carried(self, member: Array) -> Array:
        return member[:, 2]


class TruncatedES(AbstractWindowedPairs):
    """Evolution strategies on windows that start from a carried state.

    $$g = \\frac{\\epsilon}{2 \\sigma^2 K} \\sum_t (l^+_t - l^-_t)$$

    Both members of a pair start each window from the same carried state. Biased: it
    ignores what $\\theta$ did before the window. [`equistar.PES`][] corrects this.

    **Arguments:** as for [`equistar.PES`][], and

    - `carried`: whose state the next window starts from, `PlusMember()` or `MeanTheta()`.

    **Raises:** as [`equistar.PES`][].

    ??? cite

        ```bibtex
        @inproceedings{metz2019understanding,
            title={Understanding and Correcting Pathologies in the Training of Learned
                   Optimizers},
            author={Metz, Luke and Maheswaranathan, Niru and Nixon, Jeremy and
                    Freeman, C. Daniel and Sohl-Dickstein, Jascha},
            booktitle={International Conference on Machine Learning},
            year={2019},
            eprint={1810.10180},
        }
        ```
    """

    window: int = eqx.field(default=50, converter=as_int, static=True)
    pairs: int = eqx.field(default=8, converter=as_int, static=True)
    sigma: float = eqx.field(default=0.01, static=True, converter=as_sigma)
    length: AbstractEpisodeLength = eqx.field(
        default=ConstantLength(2000), converter=as_length
    )
    starts: AbstractStarts = Staggered()
    objective: AbstractStepObjective = MeanLoss()
    noise: AbstractNoise = IsotropicNoise()
    sampling: AbstractSampling = AntitheticPairs()
    shaping: AbstractShaping = NoShaping()
    carried: AbstractCarried = PlusMember()

    def init(
        self, unroll: AbstractUnroll, theta: PyTree, *, key: PRNGKeyArray
    ) -> Particles:
        check_run(self, unroll, theta, key=key)
        pairs = same_members(theta, self.pairs, 2)
        members = self.carried.members(theta, pairs)
        keys = particle_keys(key, self.pairs)
        return start(unroll, members, self.length, self.starts, keys)

    def estimate(
        self,
        unroll: AbstractUnroll,
        theta: PyTree,
        state: Particles,
        *,
        key: PRNGKeyArray,
    ) -> tuple[MetaGradient, Particles]:
        noise_key, data_key = jr.split(key)
        noise = self._pairs.draw(theta, key=noise_key)
        members = self.carried.members(theta, self._pairs.perturb(theta, noise))
        check_state(state, Particles, members)
        particles, window = advance(
            unroll,
            members,
            state,
            self.length,
            self.window,
            particle_keys(data_key, self.pairs),
        )
        values = window.values(self.objective, window.losses)
        old, new = window.split_mean(self._pairs.difference(values))
        contributions = self._pairs.gradients(theta, (old, noise), (new, noise))
        # Of the pair alone: the estimate was not made from whoever else had to run.
        finite = are_finite(particles.carry)
        meta_gradient = summarise(contributions, values[..., :2], finite[:, :2])

        def share(x: Array) -> Array:
            return jnp.broadcast_to(self.carried.carried(x)[:, None], x.shape)

        carry = jtu.tree_map(share, particles.carry)
        return meta_gradient, eqx.tree_at(lambda p: p.carry, particles, carry)
