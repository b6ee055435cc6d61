"""Tasks on data sets that TensorFlow Datasets has prepared, in the papers' sizes."""

from collections.abc import Callable

import jax.numpy as jnp

from ._architectures import (
    AbstractArchitecture,
    AbstractCell,
    ConvNet,
    GRU,
    LayerNorm,
    LSTM,
    MinibatchNorm,
    MLP,
    Recurrent,
    ResNet,
    Transformer,
    VanillaRNN,
    VisionTransformer,
)
from ._autoencoding import Autoencoding
from ._base import AbstractTask
from ._classification import Classification
from ._data import Dataset
from ._language import LanguageModelling
from ._lm1b import lm1b_slabs
from ._slab_sources import tfds_image_slabs
from ._streamed import StreamedTask
from ._text import TextDataset
from ._tfds import tfds_images
from ._wrappers import ESGradient


def _images(
    name: str, architecture: AbstractArchitecture, batch_size: int = 128
) -> Callable[[], AbstractTask]:
    return lambda: Classification(tfds_images(name), architecture, batch_size)


_fashion_mnist_mlp = _images("fashion_mnist", MLP((128, 128)))


def _mnist_autoencoder() -> AbstractTask:
    return Autoencoding(tfds_images("mnist"), MLP((128, 32, 128)), 128)


def _resnet(dataset: Dataset) -> AbstractTask:
    return Classification(dataset, ResNet(), 128)


def _recurrent(cell: AbstractCell) -> Callable[[TextDataset], AbstractTask]:
    return lambda dataset: LanguageModelling(dataset, Recurrent(cell, 256, 128), 32, 128)


# The paper gives no batch size; scores of 32,000 tokens at 128 places fill a device.
def _transformer(dataset: TextDataset) -> AbstractTask:
    return LanguageModelling(dataset, Transformer(5, 256, 8), 128, 8)


STREAMED: dict[str, StreamedTask] = {
    "imagenet32_resnet": StreamedTask(
        lambda ahead: tfds_image_slabs("imagenet_resized/32x32", ahead=ahead), _resnet
    ),
    "lm1b_lstm": StreamedTask(lambda ahead: lm1b_slabs(ahead=ahead), _recurrent(LSTM())),
    "lm1b_gru": StreamedTask(lambda ahead: lm1b_slabs(ahead=ahead), _recurrent(GRU())),
    "lm1b_rnn": StreamedTask(
        lambda ahead: lm1b_slabs(ahead=ahead), _recurrent(VanillaRNN())
    ),
    "lm1b_transformer": StreamedTask(lambda ahead: lm1b_slabs(ahead=ahead), _transformer),
    "lm1b_bytes_lstm": StreamedTask(
        lambda ahead: lm1b_slabs(256, ahead=ahead), _recurrent(LSTM())
    ),
}
"""The tasks whose data are larger than the device, by name.

[`equistar.tasks.named`][] holds their first slab alone; meta-training can go through all
of them by [`equistar.SlabFeed`][].
"""


PREPARED: dict[str, Callable[[], AbstractTask]] = {
    "fashion_mnist_mlp": _fashion_mnist_mlp,
    "fashion_mnist_mlp_es": lambda: ESGradient(_fashion_mnist_mlp(), 0.01, 1),
    "fashion_mnist_mlp_es8": lambda: ESGradient(_fashion_mnist_mlp(), 0.01, 8),
    "fashion_mnist_mlp_wide": _images("fashion_mnist", MLP((512, 512))),
    "fashion_mnist_mlp_tanh": _images("fashion_mnist", MLP((128, 128), jnp.tanh), 32),
    "cifar10_convnet": _images("cifar10", ConvNet()),
    "cifar10_mlp_layer_norm": _images("cifar10", MLP((128,) * 3, norm=LayerNorm())),
    "cifar10_mlp_batch_norm": _images("cifar10", MLP((128,) * 3, norm=MinibatchNorm())),
    "cifar10_vit": _images("cifar10", VisionTransformer()),
    "cifar100_convnet": _images("cifar100", ConvNet()),
    "svhn_convnet": _images("svhn_cropped", ConvNet()),
    "mnist_autoencoder": _mnist_autoencoder,
    **{name: task.first for name, task in STREAMED.items()},
}
"""What builds each, by name; their data must be prepared (`equistar data prepare`)."""
