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
        """A module for inputs whose first axis has `features` entries."""


class NoNorm(AbstractNorm):
    """No normalisation."""

    def build(self, features: int) -> eqx.Module:
        return eqx.nn.Identity()


class LayerNorm(AbstractNorm):
    """Layer normalisation over the features of each example.

    $$y = w \\odot \\frac{x - \\mu}{\\sqrt{v + 10^{-5}}} + b$$

    with the mean $\\mu$ and the variance $v$ over the features, at each position of an
    image or a sequence. Each feature has a learned scale $w$ and offset $b$.

    ??? cite

        ```bibtex
        @article{ba2016layer,
            title={Layer Normalization},
            author={Ba, Jimmy Lei and Kiros, Jamie Ryan and Hinton, Geoffrey E.},
            year={2016},
            eprint={1607.06450},
        }
        ```
    """

    def build(self, features: int) -> eqx.Module:
        return _LayerNorm(jnp.ones(features), jnp.zeros(features))


class MinibatchNorm(AbstractNorm):
    """Batch normalisation by the statistics of the minibatch, without running averages.

    $$y = w \\odot \\frac{x - \\mu}{\\sqrt{v + 10^{-5}}} + b$$

    with the mean $\\mu$ and the variance $v$ of each feature over the examples of the
    minibatch, and over the positions of an image. Each feature has a learned scale $w$ and
    offset $b$. Without running averages a task stays a stochastic loss: an evaluation
    normalises by its own minibatch too.

    ??? cite

        ```bibtex
        @inproceedings{ioffe2015batch,
            title={Batch Normalization: Accelerating Deep Network Training by Reducing
                   Internal Covariate Shift},
            author={Ioffe, Sergey and Szegedy, Christian},
            booktitle={International Conference on Machine Learning},
            year={2015},
            eprint={1502.03167},
        }
        ```
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
