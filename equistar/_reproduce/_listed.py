"""Numbers in a line of text."""

from collections.abc import Iterable, Mapping

import numpy as np


def listed(values: np.ndarray, form: str = ".3g") -> str:
    """The values, one after the other."""
    return ", ".join(f"{value:{form}}" for value in values)


def listed_by_name(values: Mapping[str, float], names: Iterable[str]) -> str:
    """`NAME: value` for each of the names."""
    return ", ".join(f"{name}: {values[name]:.4f}" for name in names)
