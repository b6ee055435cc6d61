"""Families of networks on one data set: of all sizes, on more or less of the data."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from .._keys import apart
from .._kinds import as_tuple, check_key, check_kind, check_range
from ._architectures import (
    AbstractArchitecture,
    AbstractNorm,
    ConvNet,
    LayerNorm,
    MinibatchNorm,
    MLP,
    NoNorm,
)
from ._base import Split
from ._classification import Classification
from ._data import Dataset, Examples
from ._families import AbstractFamily, choice, log_uniform


_ACTIVATIONS = jnn.relu, jnn.gelu, jnp.tanh
_NORMS = NoNorm(), LayerNorm(), MinibatchNorm()


class PerceptronFamily(AbstractFamily):
    """Multi-layer perceptrons of all sizes on one data set.

    Each hidden layer's width, the batch size and the share of the training data are drawn
    log-uniformly, the others uniformly.

    **Attributes:**

    - `dataset`: the data.
    - `widths`: the least and the largest.
    - `depths`: the least and the largest number of hidden layers.
    - `activations`, `norms`: to choose from.
    - `batch_sizes`: the least and the largest minibatch.
    - `shares`: of the train split that a task uses, the least and the largest; the examples
        are drawn too. The other splits stay whole.

    **Raises:**

    `ValueError` if an attribute is not of its kind, a least value is too small, or above
    the largest, or there is nothing to choose from.
    """

    dataset: Dataset
    widths: tuple[int, int] = eqx.field(default=(8, 128), converter=as_tuple, static=True)
    depths: tuple[int, int] = eqx.field(default=(1, 4), converter=as_tuple, static=True)
    activations: tuple[Callable[[Array], Array], ...] = eqx.field(
        default=_ACTIVATIONS, static=True
    )
    norms: tuple[AbstractNorm, ...] = _NORMS
    batch_sizes: tuple[int, int] = eqx.field(
        default=(64, 64), converter=as_tuple, static=True
    )
    shares: tuple[float, float] = eqx.field(default=(1.0, 1.0), static=True)

    def __check_init__(self):
        check_range(self.widths, "widths")
        check_range(self.depths, "depths", 0)
        _check_data(self.dataset, self.batch_sizes, self.shares)
        _check_choices(self.activations, self.norms)

    def sample(self, *, key: PRNGKeyArray) -> Classification:
        check_key(key)
        depth_key, width_key, activation_key, norm_key = jr.split(key, 4)
        widths = _widths(self.widths, self.depths, depth_key, width_key)
        activation = self.activations[choice(activation_key, len(self.activations))]
        norm = self.norms[choice(norm_key, len(self.norms))]
        architecture = MLP(widths, activation, norm)
        return _task(self.dataset, architecture, self.batch_sizes, self.shares, key)


class ConvNetFamily(AbstractFamily):
    """Convolutional networks of all sizes on one data set of images.

    Each convolution's channels, the batch size and the share of the training data are drawn
    log-uniformly, the others uniformly. The first convolution halves the image.

    **Attributes:**

    - `dataset`: the data.
    - `channels`: the least and the largest number of a convolution's output channels.
    - `depths`: the least and the largest number of convolutions.
    - `activations`, `norms`: to choose from.
    - `batch_sizes`, `shares`: as for [`equistar.tasks.PerceptronFamily`][].

    **Raises:** as [`equistar.tasks.PerceptronFamily`][].
    """

    dataset: Dataset
    channels: tuple[int, int] = eqx.field(default=(4, 32), converter=as_tuple, static=True)
    depths: tuple[int, int] = eqx.field(default=(1, 4), converter=as_tuple, static=True)
    activations: tuple[Callable[[Array], Array], ...] = eqx.field(
        default=_ACTIVATIONS, static=True
    )
    norms: tuple[AbstractNorm, ...] = _NORMS
    batch_sizes: tuple[int, int] = eqx.field(
        default=(64, 64), converter=as_tuple, static=True
    )
    shares: tuple[float, float] = eqx.field(default=(1.0, 1.0), static=True)

    def __check_init__(self):
        check_range(self.channels, "channels")
        check_range(self.depths, "depths")
        _check_data(self.dataset, self.batch_sizes, self.shares)
        _check_choices(self.activations, self.norms)

    def sample(self, *, key: PRNGKeyArray) -> Classification:
        check_key(key)
        depth_key, channel_key, activation_key, norm_key = jr.split(key, 4)
        channels = _widths(self.channels, self.depths, depth_key, channel_key)
        activation = self.activations[choice(activation_key, len(self.activations))]
        norm = self.norms[choice(norm_key, len(self.norms))]
        strides = (2,) + (1,) * (len(channels) - 1)
        architecture = ConvNet(channels, strides, activation=activation, norm=norm)
        return _task(self.dataset, architecture, self.batch_sizes, self.shares, key)


def _check_choices(activations: Any, norms: Any) -> None:
    kinds = ("activations", activations, "jax.nn.relu"), ("norms", norms, "NoNorm()")
    for name, choices, example in kinds:
        if not isinstance(choices, tuple) or not choices:
            raise ValueError(
                f"`{name}` must be a tuple of one or more, say ({example},); got {choices}."
            )


def _check_data(
    dataset: Dataset, batch_sizes: tuple[int, int], shares: tuple[float, float]
) -> None:
    check_kind(dataset, Dataset, "`dataset`", "a Dataset, say `digits()`")
    check_range(batch_sizes, "batch_sizes")
    if not 0 < shares[0] <= shares[1] <= 1:
        raise ValueError(f"`shares` must be 0 < least <= largest <= 1; got {shares}.")


def _widths(
    bounds: tuple[int, int],
    depths: tuple[int, int],
    depth_key: PRNGKeyArray,
    width_key: PRNGKeyArray,
) -> tuple[int, ...]:
    low, high = depths
    depth = low + choice(depth_key, high - low + 1)
    return tuple(log_uniform(k, bounds) for k in jr.split(width_key, depth))


def _task(
    dataset: Dataset,
    architecture: AbstractArchitecture,
    batch_sizes: tuple[int, int],
    shares: tuple[float, float],
    key: PRNGKeyArray,
) -> Classification:
    # Apart from the keys that `key` is split into.
    batch_key, share_key, subset_key = jr.split(apart(key, "data"), 3)
    whole = len(dataset[Split.TRAIN].targets)
    low, high = (max(1, round(share * whole)) for share in shares)
    size = log_uniform(share_key, (low, high))
    if size < whole:
        dataset = _subset(dataset, size, subset_key)
    return Classification(dataset, architecture, log_uniform(batch_key, batch_sizes))


def _subset(dataset: Dataset, size: int, key: PRNGKeyArray) -> Dataset:
    train = dataset[Split.TRAIN]
    # Numpy compiles nothing anew for each size.
    index = np.asarray(jr.permutation(key, len(train.targets)))[:size]
    pick = lambda x: jax.device_put(np.asarray(x)[index])
    fewer = Examples(pick(train.inputs), pick(train.targets))
    return eqx.tree_at(lambda d: d.splits[Split.TRAIN.value], dataset, fewer)
