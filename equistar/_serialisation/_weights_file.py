"""Optimizers in files: arrays beside a JSON header, in one NumPy `.npz` archive.

The header describes the structure, so a file is loaded without knowing what is in it.
Nothing is unpickled, and only classes of this library, or those that the caller names,
are ever built.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import zipfile
from collections.abc import Iterable
from typing import Any, NoReturn

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np

from .._files import where_to_write, write_npz_atomically
from .._kinds import as_path
from .._optimizers import AbstractOptimizer
from .._warn import warn
from ._encoding import decode, encode, WeightsError
from ._fitting import check_fits


FORMAT = "equistar-optimizer"
FORMAT_VERSION = 1
_HEADER = "header"
_NOT_FINITE = (
    "are not all finite, and its updates will not be: take an earlier file, say "
    "weights_best.npz of the run"
)


def save(
    path: str | os.PathLike[str],
    optimizer: Any,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Writes an optimizer to one file, atomically: never half of it.

    **Arguments:**

    - `path`: of the file. An existing file is replaced.
    - `optimizer`: any optimizer of this library, or one of your own, except
        [`equistar.Stacked`][], which belongs to one tree of parameters: save the optimizer
        inside it. One of a batch at a time: each learned hyperparameter is one number.
    - `provenance`: how it was made, stored in the header: anything that JSON can hold, say
        the command, the seed and the meta-loss. Arrays are stored as lists, and those of
        one number as that. Versions of Python and of packages are added under `versions`.

    **Raises:**

    `WeightsError` if the optimizer or its provenance holds something that cannot be
    described in a file, its parts do not fit together, it is a batch of optimizers, or the
    file cannot be written.
    """
    path = _as_path(path)
    if not isinstance(optimizer, AbstractOptimizer):
        raise WeightsError(f"Only optimizers are saved; got a {type(optimizer).__name__}.")
    if provenance is not None and not isinstance(provenance, dict):
        raise WeightsError(f"`provenance` must be a dictionary; got {provenance!r:.80}.")
    arrays: dict[str, np.ndarray] = {}
    structure = encode(optimizer, arrays, {}, "optimizer")
    try:
        check_fits(optimizer)
    except WeightsError as e:
        raise WeightsError(f"The optimizer is not saved: {e}") from None
    except Exception as e:
        raise WeightsError(
            "The optimizer is not saved, for its parts do not fit together (one of a batch "
            f"of optimizers is saved at a time): {e!r:.200}"
        ) from e
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "class": type(optimizer).__name__,
        "structure": structure,
        "provenance": _with_versions(provenance or {}),
    }
    try:
        text = json.dumps(header, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as e:
        raise WeightsError(f"The provenance must be something JSON can hold: {e}.") from e
    contents = {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
    _write(path, contents)


def _plain(value: Any) -> Any:
    """A number or an array of NumPy or JAX as JSON can hold it."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return np.asarray(value).tolist()
    raise TypeError(f"{type(value).__name__} is none of its kinds")


def load(
    path: str | os.PathLike[str], parts: Iterable[type[eqx.Module]] | type[eqx.Module] = ()
) -> AbstractOptimizer:
    """Reads an optimizer that `save` wrote.

    **Arguments:**

    - `path`: the file.
    - `parts`: your own classes that the optimizer was assembled from: several, or one.

    **Returns:**

    An optimizer of the class that was saved. There is a warning if its weights are not all
    finite, or have 64 bits where JAX reads 32.

    **Raises:**

    `WeightsError` if the file is missing, damaged, of another kind or newer than this
    version, or if it needs a class that is not given.
    """
    optimizer, faults = _load(path, parts)
    for fault in faults:
        warn(f"The weights in {path} {fault}.")
    return optimizer


def load_finite(path: str | os.PathLike[str]) -> AbstractOptimizer:
    """As `load`, for a run to start from: weights that are not all finite are refused."""
    optimizer, faults = _load(path, ())
    for fault in faults:
        if fault == _NOT_FINITE:
            raise WeightsError(f"The weights in {path} {fault}.")
        warn(f"The weights in {path} {fault}.")
    return optimizer


def _load(
    path: str | os.PathLike[str], parts: Iterable[type[eqx.Module]] | type[eqx.Module]
) -> tuple[AbstractOptimizer, list[str]]:
    """An optimizer, and what is to be said of its weights."""
    parts = (parts,) if isinstance(parts, type) else tuple(parts)
    for part in parts:
        if not isinstance(part, type):
            raise WeightsError(
                f"`parts` must be classes, as in `parts=(Mean,)`; got {part!r:.80}."
            )
    header, arrays = _read(_as_path(path))
    # A platform that is not there is no fault of the file.
    jax.devices()
    try:
        optimizer = decode(
            header["structure"], arrays, {cls.__name__: cls for cls in parts}
        )
        check_fits(optimizer)
    except WeightsError as e:
        raise WeightsError(f"{path}: {e}") from None
    except Exception as e:
        raise WeightsError(
            f"{path} is damaged or was written by hand: its parts do not fit together "
            f"({type(e).__name__}). Save it again."
        ) from e
    return optimizer, _faults(optimizer, arrays)


def load_header(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON header of a weights file: class, structure and provenance.

    **Arguments:**

    - `path`: the file.

    **Returns:**

    The header, as a dictionary.

    **Raises:** as [`equistar.load`][].
    """
    return _read(_as_path(path))[0]


def _with_versions(provenance: dict[str, Any]) -> dict[str, Any]:
    own = provenance.get("versions", {})
    if not isinstance(own, dict):
        raise WeightsError(
            "`provenance['versions']` must be a dictionary, for the versions of Python and "
            f"of packages are added to it; got {own!r:.80}."
        )
    return {**provenance, "versions": {**own, **versions()}}


def versions() -> dict[str, str]:
    """Of Python and of the packages that results depend on."""
    packages = ("equistar", "jax", "equinox", "optax", "numpy")
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _faults(optimizer: AbstractOptimizer, arrays: dict[str, np.ndarray]) -> list[str]:
    """What is to be known of weights that can be used, though not as one might expect."""
    found = []
    learned = jtu.tree_leaves(eqx.filter(optimizer, eqx.is_inexact_array))
    if not all(np.all(np.isfinite(x)) for x in learned):
        found.append(_NOT_FINITE)
    if any(x.dtype != jax.dtypes.canonicalize_dtype(x.dtype) for x in arrays.values()):
        found.append(
            "have 64 bits and are read with 32, as JAX does by default: to keep all, first "
            "call `jax.config.update('jax_enable_x64', True)`"
        )
    return found


def _as_path(path: Any) -> pathlib.Path:
    try:
        return as_path(path, "path")
    except ValueError as e:
        raise WeightsError(str(e)) from None


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    def fail(why: str, cause: Exception | None = None) -> NoReturn:
        raise WeightsError(f"{path} {why}") from cause

    if path.is_dir():
        fail("is a folder: give the path of a weights file in it, say its weights.npz.")
    if not path.is_file():
        fail(
            "is not there: give the path of a weights file that `equistar.save` wrote, or "
            "`equistar.load_pretrained` a name."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            # Reading every entry checks its checksum.
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop(_HEADER).tobytes())
        known = header["format"] == FORMAT
    except zipfile.BadZipFile as e:
        fail("is truncated or damaged: copy it again, or use a backup.", e)
    except PermissionError as e:
        fail("cannot be read: check its permissions.", e)
    except Exception as e:
        fail("is not a weights file that `equistar.save` wrote, or it is damaged.", e)
    if not known:
        fail(f"is not an {FORMAT} file but '{header['format']}'.")
    version = header.get("format_version")
    if not isinstance(version, int):
        fail("is damaged: it has no format version.")
    if version > FORMAT_VERSION:
        fail(
            f"has format version {version}, newer than this equistar reads "
            f"({FORMAT_VERSION}): upgrade with `pip install -U equistar`."
        )
    return header, arrays


def _write(path: pathlib.Path, contents: dict[str, np.ndarray]) -> None:
    try:
        write_npz_atomically(path, contents)
    except OSError as e:
        raise WeightsError(f"Cannot write {path}: {e.strerror}. {where_to_write(e)}") from e
