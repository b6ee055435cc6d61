"""Optimizers that come with the package, meta-trained."""

import os
import pathlib
from typing import Any

from .._names import suggest
from .._optimizers import AbstractLearnedOptimizer
from ._weights_file import load, load_header, WeightsError


_FOLDER = pathlib.Path(__file__).parents[1] / "_weights"

PRETRAINED: tuple[str, ...] = tuple(sorted(path.stem for path in _FOLDER.glob("*.npz")))
"""The names that [`equistar.load_pretrained`][] knows."""


def load_pretrained(name: str = "star-best") -> AbstractLearnedOptimizer:
    """A meta-trained optimizer that comes with the package.

    !!! Example

        ```python
        optim = eqs.as_optax(eqs.load_pretrained("star-best"))
        ```

    **Arguments:**

    - `name`: one of `equistar.PRETRAINED`. `star-best` is the one to train with; the
        others are those of the STAR paper, meta-trained on one small network, for
        research. `equistar info NAME` prints how each was made, and how well it does on
        tasks that it has not seen.

    **Returns:**

    A learned optimizer, say for [`equistar.as_optax`][].

    **Raises:**

    `ValueError` that lists the names if there is no such optimizer.
    """
    path = pretrained_path(name)
    optimizer = load(path)
    # A file can hold any optimizer; all that come with the package are learned ones.
    if not isinstance(optimizer, AbstractLearnedOptimizer):
        raise WeightsError(f"{path} holds a {type(optimizer).__name__}: install anew.")
    return optimizer


def pretrained_provenance(name: str = "star-best") -> dict[str, Any]:
    """How a pretrained optimizer was made, and its evaluation: what `equistar info` shows.

    **Arguments:** as for [`equistar.load_pretrained`][].

    **Returns:**

    A dictionary as read from the weights file's JSON header.

    **Raises:** as [`equistar.load_pretrained`][].
    """
    return load_header(pretrained_path(name))["provenance"]


def pretrained_path(name: str) -> pathlib.Path:
    """The weights file of a pretrained optimizer.

    **Raises:** as `load_pretrained`.
    """
    if name not in PRETRAINED:
        raise ValueError(
            f"There is no pretrained optimizer '{name}': "
            f"{suggest(str(name), PRETRAINED)}, or `equistar.load` a file of your own."
        )
    return _FOLDER / f"{name}.npz"


def weights_path(name_or_path: str | os.PathLike[str]) -> pathlib.Path:
    """A weights file that is there, or that of the pretrained optimizer of this name.

    **Raises:**

    `WeightsError` if it is neither.
    """
    path = pathlib.Path(name_or_path)
    if not path.is_file() and str(path) in PRETRAINED:
        return pretrained_path(str(path))
    if not path.exists():
        if path.suffix.lower() == ".safetensors":
            raise WeightsError(f"{path} is not there: give the path of a file that is.")
        raise WeightsError(
            f"{path} is not there: {suggest(str(path), PRETRAINED)}, which are pretrained, "
            "or give the path of a weights file that `equistar.save` wrote."
        )
    return path
