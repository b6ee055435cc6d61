"""Tasks on image data sets that TensorFlow Datasets has prepared, in the papers' sizes."""

from collections.abc import Callable

from ._architectures import ConvNet, LayerNorm, MLP, ResNet, VisionTransformer
from ._autoencoding import Autoencoding
from ._base import AbstractTask
from ._classification import Classification
from ._tfds import tfds_images
from ._wrappers import ESGradient


def _fashion_mnist_mlp() -> AbstractTask:
    return Classification(tfds_images("fashion_mnist"), MLP((128, 128)), 128)


def _cifar10_mlp() -> AbstractTask:
    architecture = MLP((128, 128, 128), norm=LayerNorm())
    return Classification(tfds_images("cifar10"), architecture, 128)


def _imagenet_resnet() -> AbstractTask:
    return Classification(tfds_images("imagenet_resized/32x32"), ResNet(), 128)


def _mnist_autoencoder() -> AbstractTask:
    return Autoencoding(tfds_images("mnist"), MLP((128, 32, 128)), 128)


PREPARED: dict[str, Callable[[], AbstractTask]] = {
    "fashion_mnist_mlp": _fashion_mnist_mlp,
    "fashion_mnist_mlp_es": lambda: ESGradient(_fashion_mnist_mlp(), 0.01, 1),
    "fashion_mnist_mlp_es8": lambda: ESGradient(_fashion_mnist_mlp(), 0.01, 8),
    "cifar10_convnet": lambda: Classification(tfds_images("cifar10"), ConvNet(), 128),
    "cifar10_mlp_layer_norm": _cifar10_mlp,
    "cifar10_vit": lambda: Classification(tfds_images("cifar10"), VisionTransformer(), 128),
    "cifar100_convnet": lambda: Classification(tfds_images("cifar100"), ConvNet(), 128),
    "svhn_convnet": lambda: Classification(tfds_images("svhn_cropped"), ConvNet(), 128),
    "imagenet32_resnet": _imagenet_resnet,
    "mnist_autoencoder": _mnist_autoencoder,
}
"""What builds each, by name; their data must be prepared (`equistar data prepare`)."""
