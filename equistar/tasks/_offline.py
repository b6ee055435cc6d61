"""Tasks on real data that every install has."""

from collections.abc import Sequence

from ._architectures import MLP
from ._classification import Classification
from ._data import digits


def digits_mlp(hidden: Sequence[int] = (32, 32), batch_size: int = 64) -> Classification:
    """The MLP 64-32-32-10 on scikit-learn's digits: real data, with no download."""
    return Classification(digits(), MLP(tuple(hidden)), batch_size)
