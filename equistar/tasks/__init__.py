"""Tasks: stochastic losses that hold their data and draw their own minibatches."""

from collections.abc import Callable

from ._architectures import (
    AbstractArchitecture as AbstractArchitecture,
    AbstractNorm as AbstractNorm,
    LayerNorm as LayerNorm,
    MinibatchNorm as MinibatchNorm,
    MLP as MLP,
    NoNorm as NoNorm,
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
from ._offline import digits_mlp as digits_mlp
from ._quadratic import Quadratic as Quadratic
from ._regression import Regression as Regression


NAMED: dict[str, Callable[[], AbstractTask]] = {
    "digits_mlp": digits_mlp,
    "digits_mlp_wide": lambda: digits_mlp(hidden=(128, 128)),
    "digits_logistic": lambda: digits_mlp(hidden=()),
}
"""The tasks that the command line knows, by name."""

SUITES: dict[str, tuple[str, ...]] = {"smoke": ("digits_mlp", "digits_logistic")}
"""The suites that the command line knows: the names of their tasks, by name."""


def named(name: str) -> AbstractTask:
    """The task of this name.

    **Raises:**

    `ValueError` that lists the right names if there is none.
    """
    if name not in NAMED:
        raise ValueError(f"There is no task '{name}': choose one of {sorted(NAMED)}.")
    return NAMED[name]()
