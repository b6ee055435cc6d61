"""What stands between a layer and its activation."""

import abc

import equinox as eqx
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._base import BATCH


class AbstractNorm(eqx.Module):
    """Makes the normalisation that follows a layer."""

    @abc.abstractmethod
    def build(self, features: int) -> eqx.Module:
        """A module for inputs whose first axis is `features` long."""


class NoNorm(AbstractNorm):
    """No normalisation."""

    def build(self, features: int) -> eqx.Module:
        return eqx.nn.Identity()


class LayerNorm(AbstractNorm):
    """Over the features of each example, with a learned scale and offset of each."""

    def build(self, features: int) -> eqx.Module:
        return _LayerNorm(jnp.ones(features), jnp.zeros(features))


class MinibatchNorm(AbstractNorm):
    """Batch normalisation by the statistics of the minibatch, without running averages.

    So a task stays a stochastic loss: what is evaluated is evaluated on a minibatch.
    """

    def build(self, features: int) -> eqx.Module:
        return _MinibatchNorm(jnp.ones(features), jnp.zeros(features))


class _LayerNorm(eqx.Module):
    weight: Float[Array, " features"]
    bias: Float[Array, " features"]

    def __call__(self, x: Float[Array, "features ..."]) -> Float[Array, "features ..."]:
        centred = x - jnp.mean(x, axis=0, keepdims=True)
        variance = jnp.mean(centred**2, axis=0, keepdims=True)
        return _affine(self.weight, self.bias, centred * lax.rsqrt(variance + 1e-5))


class _MinibatchNorm(eqx.Module):
    weight: Float[Array, " features"]
    bias: Float[Array, " features"]

    def __call__(self, x: Float[Array, "features ..."]) -> Float[Array, "features ..."]:
        # Over the examples, and over the positions of an image.
        positions = tuple(range(1, x.ndim))
        mean = lambda x: lax.pmean(jnp.mean(x, axis=positions, keepdims=True), BATCH)
        centred = x - mean(x)
        scaled = centred * lax.rsqrt(mean(centred**2) + 1e-5)
        return _affine(self.weight, self.bias, scaled)


def _affine(
    weight: Float[Array, " features"],
    bias: Float[Array, " features"],
    x: Float[Array, "features ..."],
) -> Float[Array, "features ..."]:
    shape = (-1,) + (1,) * (x.ndim - 1)
    return weight.reshape(shape) * x + bias.reshape(shape)
