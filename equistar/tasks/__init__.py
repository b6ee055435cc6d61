"""Tasks: stochastic losses that hold their data and draw their own minibatches."""

from collections.abc import Callable

from ._architectures import (
    AbstractArchitecture as AbstractArchitecture,
    AbstractNorm as AbstractNorm,
    ConvNet as ConvNet,
    LayerNorm as LayerNorm,
    MinibatchNorm as MinibatchNorm,
    MLP as MLP,
    NoNorm as NoNorm,
    ResNet as ResNet,
    VisionTransformer as VisionTransformer,
)
from ._autoencoding import (
    Autoencoding as Autoencoding,
    VariationalAutoencoding as VariationalAutoencoding,
)
from ._base import AbstractTask as AbstractTask, Split as Split
from ._classification import Classification as Classification
from ._data import (
    Dataset as Dataset,
    dataset_from_arrays as dataset_from_arrays,
    digits as digits,
    Examples as Examples,
    regression_from_arrays as regression_from_arrays,
    RegressionDataset as RegressionDataset,
)
from ._likelihoods import (
    AbstractLikelihood as AbstractLikelihood,
    BernoulliLikelihood as BernoulliLikelihood,
    GaussianLikelihood as GaussianLikelihood,
)
from ._offline import (
    digits_autoencoder as digits_autoencoder,
    digits_convnet as digits_convnet,
    digits_mlp as digits_mlp,
    digits_resnet as digits_resnet,
    digits_vae as digits_vae,
    digits_vit as digits_vit,
)
from ._quadratic import Quadratic as Quadratic
from ._regression import Regression as Regression
from ._tfds import (
    IMAGES as IMAGES,
    ImageSource as ImageSource,
    tfds_images as tfds_images,
)


NAMED: dict[str, Callable[[], AbstractTask]] = {
    "digits_mlp": digits_mlp,
    "digits_mlp_wide": lambda: digits_mlp(hidden=(128, 128)),
    "digits_logistic": lambda: digits_mlp(hidden=()),
    "digits_convnet": digits_convnet,
    "digits_resnet": digits_resnet,
    "digits_vit": digits_vit,
    "digits_autoencoder": digits_autoencoder,
    "digits_vae": digits_vae,
}
"""The tasks that the command line knows, by name."""


def named(name: str) -> AbstractTask:
    """The task of this name.

    **Raises:**

    `ValueError` that lists the right names if there is none.
    """
    if name not in NAMED:
        raise ValueError(f"There is no task '{name}': choose one of {sorted(NAMED)}.")
    return NAMED[name]()
