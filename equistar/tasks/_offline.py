"""Tasks on real data that every install has."""

from collections.abc import Sequence

from ._architectures import ConvNet, MLP, ResNet, VisionTransformer
from ._autoencoding import Autoencoding, VariationalAutoencoding
from ._classification import Classification
from ._data import digits


def digits_mlp(hidden: Sequence[int] = (32, 32), batch_size: int = 64) -> Classification:
    """The MLP 64-32-32-10 on scikit-learn's digits: real data, with no download."""
    return Classification(digits(), MLP(tuple(hidden)), batch_size)


def digits_convnet(
    channels: Sequence[int] = (8, 16, 16), batch_size: int = 64
) -> Classification:
    """The paper's ConvNet with fewer channels on scikit-learn's digits."""
    strides = (2,) + (1,) * (len(channels) - 1)
    return Classification(digits(), ConvNet(tuple(channels), strides), batch_size)


def digits_resnet(widths: Sequence[int] = (8, 16), batch_size: int = 64) -> Classification:
    """A residual network of two stages on scikit-learn's digits, batch norm and all."""
    return Classification(digits(), ResNet(tuple(widths)), batch_size)


def digits_vit(width: int = 16, batch_size: int = 64) -> Classification:
    """A vision transformer of two blocks, on 2x2 patches of scikit-learn's digits."""
    return Classification(digits(), VisionTransformer(2, width, 2, 2), batch_size)


def digits_autoencoder(
    hidden: Sequence[int] = (32, 8, 32), batch_size: int = 64
) -> Autoencoding:
    """The auto-encoder 64-32-8-32-64 of scikit-learn's digits."""
    return Autoencoding(digits(), MLP(tuple(hidden)), batch_size)


def digits_vae(latent: int = 8, batch_size: int = 64) -> VariationalAutoencoding:
    """A variational auto-encoder of scikit-learn's digits, its pixels Bernoulli."""
    return VariationalAutoencoding(digits(), latent=latent, batch_size=batch_size)
