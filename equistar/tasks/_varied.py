"""Small, different tasks that an optimizer is meta-trained on to be of use on others."""

from collections.abc import Callable

import jax.nn as jnn
import jax.numpy as jnp
import jax.random as jr

from ._architectures import (
    AbstractArchitecture,
    ConvNet,
    FourierMLP,
    GRU,
    LayerNorm,
    MinibatchNorm,
    MLP,
    Recurrent,
    VisionTransformer,
)
from ._autoencoding import Autoencoding
from ._base import AbstractTask
from ._bundled import breast_cancer, diabetes, digits, photograph, wine
from ._classification import Classification
from ._language import LanguageModelling
from ._quadratic import Quadratic
from ._regression import Regression
from ._synthetic import LinearTeacher
from ._text import standard_library_text
from ._wrappers import ESGradient, Reparametrised


def _digits(network: AbstractArchitecture, batch_size: int = 32) -> Classification:
    return Classification(digits(), network, batch_size)


def _in_other_units(task: AbstractTask, seed: int, most: float) -> Reparametrised:
    return Reparametrised(task, 1 / most, most, key=jr.key(seed))


VARIED: dict[str, Callable[[], AbstractTask]] = {
    "varied_gelu": lambda: _digits(MLP((48, 40), jnn.gelu)),
    "varied_wide": lambda: _digits(MLP((160,))),
    "varied_layer_norm": lambda: _digits(MLP((24, 24), jnn.gelu, LayerNorm())),
    "varied_batch_norm": lambda: _digits(MLP((24,), norm=MinibatchNorm()), 64),
    "varied_units_relu": lambda: _in_other_units(_digits(MLP((24,))), 1, 1000),
    "varied_units_tanh": lambda: _in_other_units(_digits(MLP((16, 16), jnp.tanh)), 2, 30),
    "varied_small_batches": lambda: _digits(MLP((24, 16), jnp.tanh), 8),
    "varied_es": lambda: ESGradient(_digits(MLP((16,))), pairs=2),
    "varied_convnet": lambda: _digits(ConvNet((6, 8), (2, 1)), 24),
    "varied_vit": lambda: _digits(VisionTransformer(4, 12, 1, 2), 24),
    "varied_text": lambda: LanguageModelling(
        standard_library_text(), Recurrent(GRU(), width=16, embedding=8), 8, batch_size=8
    ),
    "varied_autoencoder": lambda: Autoencoding(digits(), MLP((48,), jnp.tanh), 32),
    "varied_wine_linear": lambda: Classification(wine(), MLP(()), 16),
    "varied_cancer": lambda: Classification(breast_cancer(), MLP((8,), jnp.tanh), 32),
    "varied_diabetes": lambda: Regression(diabetes(), MLP((32,), jnn.gelu), 64),
    "varied_photograph": lambda: Regression(photograph(), FourierMLP((24, 24)), 64),
    "varied_teacher": lambda: LinearTeacher(jnp.logspace(-2.0, 0.0, 16), key=jr.key(1)),
    "varied_quadratic": lambda: Quadratic(jnp.logspace(-4.0, 0.0, 20), 0.05, (0.0, 10.0)),
    "varied_exact": lambda: Quadratic(jnp.logspace(-3.0, 1.0, 30), 0.0, (0.0, 40.0)),
}
"""By name; none of them is in the suite `offline`."""
