"""Tasks: stochastic losses that hold their data and draw their own minibatches."""

from collections.abc import Callable as _Callable

from .._names import look_up as _look_up
from ._architectures import (
    AbstractArchitecture as AbstractArchitecture,
    AbstractCell as AbstractCell,
    AbstractNorm as AbstractNorm,
    ConvNet as ConvNet,
    FourierMLP as FourierMLP,
    GRU as GRU,
    LayerNorm as LayerNorm,
    LSTM as LSTM,
    MinibatchNorm as MinibatchNorm,
    MLP as MLP,
    NoNorm as NoNorm,
    Recurrent as Recurrent,
    ResNet as ResNet,
    Transformer as Transformer,
    VanillaRNN as VanillaRNN,
    VisionTransformer as VisionTransformer,
)
from ._arrays import (
    dataset_from_arrays as dataset_from_arrays,
    regression_from_arrays as regression_from_arrays,
)
from ._autoencoding import (
    Autoencoding as Autoencoding,
    VariationalAutoencoding as VariationalAutoencoding,
)
from ._base import AbstractTask as AbstractTask, Split as Split
from ._bundled import (
    breast_cancer as breast_cancer,
    diabetes as diabetes,
    digits as digits,
    photograph as photograph,
    wine as wine,
)
from ._classification import Classification as Classification
from ._data import (
    Dataset as Dataset,
    Examples as Examples,
    RegressionDataset as RegressionDataset,
)
from ._families import (
    AbstractFamily as AbstractFamily,
    QuadraticFamily as QuadraticFamily,
)
from ._label_noise import with_label_noise as with_label_noise
from ._language import LanguageModelling as LanguageModelling
from ._likelihoods import (
    AbstractLikelihood as AbstractLikelihood,
    BernoulliLikelihood as BernoulliLikelihood,
    GaussianLikelihood as GaussianLikelihood,
)
from ._lm1b import lm1b_slabs as lm1b_slabs
from ._network_families import (
    ConvNetFamily as ConvNetFamily,
    PerceptronFamily as PerceptronFamily,
)
from ._offline import (
    digits_autoencoder as digits_autoencoder,
    digits_convnet as digits_convnet,
    digits_mlp as digits_mlp,
    digits_resnet as digits_resnet,
    digits_vae as digits_vae,
    digits_vit as digits_vit,
    OFFLINE as _OFFLINE,
)
from ._prepared import PREPARED as _PREPARED, STREAMED as STREAMED
from ._quadratic import Quadratic as Quadratic
from ._regression import Regression as Regression
from ._slab_sources import (
    classification_slabs as classification_slabs,
    tfds_image_slabs as tfds_image_slabs,
)
from ._slabs import RandomAccess as RandomAccess, Slabs as Slabs
from ._streamed import StreamedTask as StreamedTask
from ._suites import HORIZONS as HORIZONS, suite as suite, SUITES as SUITES
from ._synthetic import LinearTeacher as LinearTeacher, Rosenbrock as Rosenbrock
from ._text import (
    standard_library_text as standard_library_text,
    text_from_tokens as text_from_tokens,
    TextDataset as TextDataset,
)
from ._text_slabs import text_slabs as text_slabs
from ._tfds import (
    IMAGES as IMAGES,
    ImageSource as ImageSource,
    tfds_images as tfds_images,
)
from ._varied import VARIED as _VARIED
from ._wrappers import (
    ESGradient as ESGradient,
    LowPrecision as LowPrecision,
    Reparametrised as Reparametrised,
)


NAMED: dict[str, _Callable[[], AbstractTask]] = {
    **_OFFLINE,
    **_VARIED,
    **_PREPARED,
}
"""Functions that build a task, by the name that commands know it by."""


def named(name: str) -> AbstractTask:
    """The task of this name.

    **Arguments:**

    - `name`: a key of [`equistar.tasks.NAMED`][].

    **Returns:**

    A new [`equistar.tasks.AbstractTask`][].

    **Raises:**

    `ValueError` that lists the right names if there is none.
    """
    return _look_up(name, NAMED, "task")()
