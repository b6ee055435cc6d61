"""Tasks on real data that every install has."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._kinds import as_tuple, check_counts
from ._architectures import (
    AbstractArchitecture,
    AbstractCell,
    ConvNet,
    FourierMLP,
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
from ._autoencoding import Autoencoding, VariationalAutoencoding
from ._base import AbstractTask
from ._bundled import breast_cancer, diabetes, digits, photograph, wine
from ._classification import Classification
from ._label_noise import with_label_noise
from ._language import LanguageModelling
from ._quadratic import Quadratic
from ._regression import Regression
from ._synthetic import LinearTeacher, Rosenbrock
from ._text import standard_library_text
from ._wrappers import ESGradient, LowPrecision, Reparametrised


def digits_mlp(hidden: Sequence[int] = (32, 32), batch_size: int = 64) -> Classification:
    """The MLP 64-32-32-10 on scikit-learn's digits: real data, with no download.

    **Arguments:**

    - `hidden`: widths of the hidden layers.
    - `batch_size`: examples in a minibatch.

    **Returns:**

    A [`equistar.tasks.Classification`][].
    """
    return Classification(digits(), MLP(as_tuple(hidden)), batch_size)


def digits_convnet(
    channels: Sequence[int] = (8, 16, 16), batch_size: int = 64
) -> Classification:
    """The STAR paper's ConvNet, with fewer channels, on scikit-learn's digits.

    **Arguments:**

    - `channels`: of each convolution.
    - `batch_size`: examples in a minibatch.

    **Returns:**

    A [`equistar.tasks.Classification`][].
    """
    channels = as_tuple(channels)
    check_counts(channels, "channels")
    strides = (2,) + (1,) * (len(channels) - 1)
    return Classification(digits(), ConvNet(channels, strides), batch_size)


def digits_resnet(widths: Sequence[int] = (8, 16), batch_size: int = 64) -> Classification:
    """A residual network of two stages, with batch norm, on scikit-learn's digits.

    **Arguments:**

    - `widths`: channels of each stage.
    - `batch_size`: examples in a minibatch.

    **Returns:**

    A [`equistar.tasks.Classification`][].
    """
    return Classification(digits(), ResNet(as_tuple(widths)), batch_size)


def digits_vit(width: int = 16, batch_size: int = 64) -> Classification:
    """A vision transformer of two blocks, on 2x2 patches of scikit-learn's digits.

    **Arguments:**

    - `width`: features at each patch, an even number.
    - `batch_size`: examples in a minibatch.

    **Returns:**

    A [`equistar.tasks.Classification`][].
    """
    return Classification(digits(), VisionTransformer(2, width, 2, 2), batch_size)


def digits_autoencoder(
    hidden: Sequence[int] = (32, 8, 32), batch_size: int = 64
) -> Autoencoding:
    """The auto-encoder 64-32-8-32-64 of scikit-learn's digits.

    **Arguments:**

    - `hidden`: widths of the hidden layers, the code among them.
    - `batch_size`: examples in a minibatch.

    **Returns:**

    A [`equistar.tasks.Autoencoding`][].
    """
    return Autoencoding(digits(), MLP(as_tuple(hidden)), batch_size)


def digits_vae(latent: int = 8, batch_size: int = 64) -> VariationalAutoencoding:
    """A variational auto-encoder of scikit-learn's digits, with a Bernoulli likelihood.

    **Arguments:**

    - `latent`: numbers in a code.
    - `batch_size`: examples in a minibatch.

    **Returns:**

    A [`equistar.tasks.VariationalAutoencoding`][].
    """
    return VariationalAutoencoding(digits(), latent=latent, batch_size=batch_size)


def _text(architecture: AbstractArchitecture) -> LanguageModelling:
    return LanguageModelling(standard_library_text(), architecture, 32, batch_size=16)


def _recurrent(cell: AbstractCell) -> LanguageModelling:
    return _text(Recurrent(cell, width=64, embedding=32))


def _photograph(architecture: AbstractArchitecture) -> Regression:
    return Regression(photograph(), architecture, batch_size=128)


def _noisy_labels() -> Classification:
    return Classification(with_label_noise(digits(), 0.3))


def _spectrum(n: int) -> Float[Array, " n"]:
    return jnp.logspace(-3.0, 0.0, n)


OFFLINE: dict[str, Callable[[], AbstractTask]] = {
    "digits_logistic": lambda: digits_mlp(hidden=()),
    "digits_mlp": digits_mlp,
    "digits_mlp_wide": lambda: digits_mlp(hidden=(128, 128)),
    "digits_mlp_tanh": lambda: Classification(digits(), MLP((32, 32), jnp.tanh), 16),
    "digits_mlp_layer_norm": lambda: Classification(
        digits(), MLP((32, 32, 32), norm=LayerNorm())
    ),
    "digits_mlp_batch_norm": lambda: Classification(
        digits(), MLP((32, 32), norm=MinibatchNorm())
    ),
    "digits_mlp_label_noise": _noisy_labels,
    "digits_mlp_reparametrised": lambda: Reparametrised(digits_mlp(), key=jr.key(0)),
    "digits_mlp_bfloat16": lambda: LowPrecision(digits_mlp()),
    "digits_mlp_es": lambda: ESGradient(digits_mlp()),
    "digits_mlp_es8": lambda: ESGradient(digits_mlp(), pairs=8),
    "digits_convnet": digits_convnet,
    "digits_resnet": digits_resnet,
    "digits_vit": digits_vit,
    "digits_autoencoder": digits_autoencoder,
    "digits_vae": digits_vae,
    "breast_cancer_logistic": lambda: Classification(breast_cancer(), MLP(()), 32),
    "wine_mlp": lambda: Classification(wine(), MLP((16,)), 16),
    "diabetes_mlp": lambda: Regression(diabetes(), MLP((16, 16)), 32),
    "photograph_mlp": lambda: _photograph(MLP((64, 64))),
    "photograph_fourier": lambda: _photograph(FourierMLP((64, 64))),
    "text_lstm": lambda: _recurrent(LSTM()),
    "text_gru": lambda: _recurrent(GRU()),
    "text_rnn": lambda: _recurrent(VanillaRNN()),
    "text_transformer": lambda: _text(Transformer(depth=2, width=64, heads=4)),
    "linear_teacher": lambda: LinearTeacher(_spectrum(32), key=jr.key(0)),
    "quadratic": lambda: Quadratic(_spectrum(32), 0.1, (0.0, 10.0)),
    "rosenbrock": Rosenbrock,
}
"""The tasks that need no download, by name."""
