"""Settings of a run in words that JSON has, whole: so that others are seen to be others."""

import dataclasses
import enum
import hashlib
import os
import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from ._devices import gather


def plain_settings(settings: Any) -> dict[str, Any]:
    """Settings as JSON has them: arrays by shape, dtype and a digest of their bytes.

    **Raises:**

    `ValueError` if they are not by name, or hold what cannot be compared.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(
            "`settings` must be a dictionary of what the run is made of, say "
            f'{{"sigma": 0.01}}; got {settings!r:.80}.'
        )
    return _plain(settings, "settings")


# `repr` and `str` would not do: they abbreviate arrays, and name functions by address.
def _plain(value: Any, where: str) -> Any:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case enum.Enum() | np.dtype():
            return str(value)
        case os.PathLike():
            return os.fspath(value)
        case np.bool_() | np.integer() | np.floating():
            return value.item()
        case jax.Array() | np.ndarray() | np.generic() if not _holds_objects(value):
            return _digest(value)
        case Mapping():
            return {_name(k, where): _plain(v, f"{where}[{k!r}]") for k, v in value.items()}
        case list() | tuple():
            return [_plain(v, f"{where}[{i}]") for i, v in enumerate(value)]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = [f.name for f in dataclasses.fields(value)]
            parts = {f: _plain(getattr(value, f), f"{where}.{f}") for f in fields}
            return {"class": type(value).__qualname__, **parts}
        case _ if _imported(value):
            return f"{value.__module__}.{value.__qualname__}"
    raise ValueError(
        f"`{where}` is a {type(value).__name__}, which cannot be compared when the run "
        "goes on: give what tells it apart, say its name or its arrays."
    )


def _name(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise ValueError(f"The names in `{where}` must be strings; got {key!r:.80}.")
    return key


def _holds_objects(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.dtype.hasobject


def _digest(array: Array | np.ndarray | np.generic) -> str:
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jr.key_data(array)
    host = gather(array) if isinstance(array, jax.Array) else np.asarray(array)
    text = hashlib.sha256(host.tobytes()).hexdigest()
    return f"an array of shape {host.shape}, dtype {host.dtype} and SHA-256 {text}"


def _imported(value: Any) -> bool:
    """Whether a function or class is what its name means, as no lambda is."""
    module = sys.modules.get(getattr(value, "__module__", None) or "")
    return getattr(module, getattr(value, "__qualname__", ""), None) is value
