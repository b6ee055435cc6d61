"""Settings of a run in words that JSON has, whole: so that others are seen to be others."""

import dataclasses
import enum
import functools as ft
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .._devices import gather


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


def fixed_parts(value: Any) -> Any:
    """What of a pytree meta-training does not change, as JSON has it.

    Numbers, texts and the classes of modules, by field; arrays by their shape and dtype,
    since another device gives other roundings; functions by name. Private fields are left
    out, for they hold what a run makes; of what is no module only the plain ones count.
    """
    match value:
        case enum.Enum() | np.dtype():
            return str(value)
        case None | bool() | int() | float() | str():
            return value
        case complex() | bytes() | range():
            return repr(value)
        case os.PathLike():
            return os.fspath(value)
        case jax.Array() | np.ndarray():
            return f"an array of shape {value.shape} and dtype {value.dtype}"
        case np.generic():
            item = value.item()
            # A long double is no number of Python's.
            return repr(item) if isinstance(item, np.generic) else fixed_parts(item)
        case Mapping():
            name = lambda key: key if isinstance(key, str) else repr(key)
            return {name(k): fixed_parts(v) for k, v in value.items()}
        case list() | tuple():
            return [fixed_parts(x) for x in value]
        case set() | frozenset():
            return sorted((fixed_parts(x) for x in value), key=json.dumps)
        case ft.partial():
            parts = value.func, value.args, value.keywords
            return {"class": "partial", "parts": fixed_parts(parts)}
    return _named(value) or {"class": type(value).__qualname__, **_fields(value)}


# As text: objects may answer to any name.
def _named(value: Any) -> str:
    names = [getattr(value, name, None) for name in ("__qualname__", "__name__")]
    return next((name for name in names if isinstance(name, str)), "")


def _fields(value: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if f.name[0] != "_"]
        return {name: fixed_parts(getattr(value, name, None)) for name in names}
    plain = bool | int | float | str
    there = getattr(value, "__dict__", None)
    items = there.items() if isinstance(there, dict) else ()
    return {k: v for k, v in items if k[0] != "_" and isinstance(v, plain)}


class Difference(NamedTuple):
    """Where two settings differ, and what they are there."""

    where: str
    saved: Any
    ours: Any


def differences(saved: Any, ours: Any, where: str = "") -> list[Difference]:
    """Where two `fixed_parts` differ.

    Of one class only the fields that both have are compared: another version of it may
    have more.
    """
    if isinstance(saved, dict) and isinstance(ours, dict):
        if saved.get("class") != ours.get("class"):
            return [Difference(where, _short(saved), _short(ours))]
        inside = lambda name: f"{where}.{name}" if where else name
        names = {*saved} & {*ours} if "class" in ours else {*saved} | {*ours}
        pairs = [(saved.get(k), ours.get(k), inside(k)) for k in sorted(names)]
        return _joined(differences(*pair) for pair in pairs)
    if isinstance(saved, list) and isinstance(ours, list) and len(saved) == len(ours):
        pairs = enumerate(zip(saved, ours, strict=True))
        return _joined(differences(a, b, f"{where}[{i}]") for i, (a, b) in pairs)
    same = are_same(saved, ours)
    return [] if same else [Difference(where, _short(saved), _short(ours))]


def are_same(a: Any, b: Any) -> bool:
    """Whether two settings are, as text too, in which NaN is what it is."""
    return a == b or json.dumps(a) == json.dumps(b)


def _joined(parts: Iterable[list[Difference]]) -> list[Difference]:
    return [x for part in parts for x in part]


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        value = value.get("class", value)
    is_long = isinstance(value, dict | list) and len(json.dumps(value)) > 80
    return f"{len(value)} entries" if is_long else value


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
