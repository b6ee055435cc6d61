"""What a model's architecture is."""

import abc

import equinox as eqx
from jaxtyping import PRNGKeyArray


BATCH = "batch"
"""The name of the axis over which a task maps a model."""


class AbstractArchitecture(eqx.Module):
    """Sizes and shapes of a model; the weights are made from them.

    Nothing in it is an array, so that tasks of one architecture share their compiled
    programs.
    """

    @abc.abstractmethod
    def build(
        self, in_shape: tuple[int, ...], out_size: int, *, key: PRNGKeyArray
    ) -> eqx.Module:
        """A model, say of `equinox.nn` layers, with random weights.

        **Arguments:**

        - `in_shape`: of one input.
        - `out_size`: numbers in its output.
        - `key`: the weights are drawn with it.

        **Returns:**

        A module that is called with one example's input, of `in_shape`, and returns its
        output. Tasks map it over a minibatch by `jax.vmap` with the axis name "batch".
        Its parameters are its floating-point arrays. Other arrays, say an order of the
        inputs, are those of one fixed key, whatever key the parameters are drawn with.
        """
