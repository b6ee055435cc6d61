"""Bias correction: what a moving average that starts at zero is in its first steps."""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class AbstractBiasCorrection(eqx.Module):
    """How a moving average that starts at zero is corrected in its first updates."""

    @abc.abstractmethod
    def __call__(
        self, complement: Float[Array, ""], count: Int[Array, ""]
    ) -> Float[Array, ""]:
        """The weight of the newest value.

        **Arguments:**

        - `complement`: $1 - b$, its weight in the long run.
        - `count`: the number of updates made before this one.
        """


class NoBiasCorrection(AbstractBiasCorrection):
    """No correction, as in the paper: the weight of the newest value is $1 - b$."""

    def __call__(
        self, complement: Float[Array, ""], count: Int[Array, ""]
    ) -> Float[Array, ""]:
        return complement


class BiasCorrection(AbstractBiasCorrection):
    """The average is over the values seen so far, from the first update on.

    The weight of the newest value is $(1 - b) / (1 - b^{t+1})$ after $t$ updates, so the
    state *is* Adam's bias-corrected average, and is read without a division.

    ??? cite

        ```bibtex
        @inproceedings{kingma2015adam,
            title={Adam: A Method for Stochastic Optimization},
            author={Kingma, Diederik P. and Ba, Jimmy},
            booktitle={International Conference on Learning Representations},
            year={2015},
        }
        ```
    """

    def __call__(
        self, complement: Float[Array, ""], count: Int[Array, ""]
    ) -> Float[Array, ""]:
        # Meta-learned decays may leave [0, 1), where there is nothing to average over.
        c = jnp.clip(complement, 1e-7, 1 - 1e-6)
        return -c / jnp.expm1((count.astype(c.dtype) + 1) * jnp.log1p(-c))
