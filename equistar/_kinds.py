"""Arguments that must be of a kind, and what to say of one that is not."""

import dataclasses
import inspect
import operator
import os
import pathlib
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np


# From Python 3.14 on annotations are evaluated when a signature is asked for, and those of
# names that only type checkers import are a NameError then.
_UNEVALUATED: dict[str, Any] = {}
if sys.version_info >= (3, 14):
    import annotationlib

    _UNEVALUATED["annotation_format"] = annotationlib.Format.FORWARDREF


def check_kind(
    value: Any, kind: type | types.UnionType, name: str, wanted: str = ""
) -> None:
    """Raises a `ValueError` unless `value` is an instance of `kind`.

    **Arguments:**

    - `name`: of the argument, as the message begins.
    - `wanted`: what it must be, with an example; by default the classes of that kind.
        A union of kinds needs it.
    """
    if isinstance(value, kind):
        return
    if isinstance(value, type) and issubclass(value, kind):
        raise ValueError(
            f"{name} is a class and not an instance: pass {instance_of(value)}."
        )
    if not wanted and isinstance(kind, type):
        wanted = f"an instance of {kind.__name__} ({', '.join(_choices(kind))})"
    raise ValueError(f"{name} must be {wanted}; got {_shown(value)}.")


def instance_of(cls: type) -> str:
    """How one is made, for messages: by its name, and the arguments that it must have."""
    try:
        parameters = signature_of(cls).parameters.values()
    except (TypeError, ValueError):
        parameters = ()
    variadic = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    must = [p for p in parameters if p.default is p.empty and p.kind not in variadic]
    shown = [f"{p.name}=..." if p.kind is p.KEYWORD_ONLY else p.name for p in must]
    return f"`{cls.__name__}({', '.join(shown)})`"


def check_parts(module: eqx.Module) -> None:
    """Raises a `ValueError` where a part of a module is not of its field's kind."""
    kinds = _annotations(type(module))
    for field in dataclasses.fields(module):
        kind = kinds.get(field.name)
        if isinstance(kind, type) and issubclass(kind, eqx.Module):
            name = f"`{field.name}` of {type(module).__name__}"
            check_kind(getattr(module, field.name), kind, name)


# They are strings in a module that has `from __future__ import annotations`.
def _annotations(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError:
        return {field.name: field.type for field in dataclasses.fields(cls)}


def check_count(number: Any, name: str, least: int = 1) -> None:
    """Raises a `ValueError` unless `number` is a whole one of at least `least`."""
    if not _is_count(number, least):
        raise ValueError(
            f"`{name}` must be a whole number of at least {least}; got {_shown(number)}."
        )


def check_steps(number: Any, name: str, least: int = 1) -> None:
    """As `check_count`, of what is counted on the device: in 32 bits."""
    check_count(number, name, least)
    if number >= 2**31:
        raise ValueError(f"`{name}` must be below 2**31; got {number}.")


def as_count(number: Any, name: str, least: int = 1) -> int:
    """A whole number of Python's; raises as `check_count`."""
    check_count(number, name, least)
    return int(number)


def as_steps(number: Any, name: str, least: int = 1) -> int:
    """A whole number of Python's; raises as `check_steps`."""
    check_steps(number, name, least)
    return int(number)


def check_counts(numbers: Any, name: str) -> None:
    """Raises a `ValueError` unless `numbers` is a tuple of whole ones of at least 1."""
    if not isinstance(numbers, tuple) or not all(_is_count(n, 1) for n in numbers):
        raise ValueError(
            f"`{name}` must be a tuple of whole numbers of at least 1, say (32, 32); got "
            f"{_shown(numbers)}."
        )


def check_range(bounds: Any, name: str, least: int = 1) -> None:
    """Raises a `ValueError` unless `bounds` are two whole numbers, in order."""
    whole = isinstance(bounds, tuple) and all(_is_count(n, least) for n in bounds)
    if not whole or len(bounds) != 2 or bounds[0] > bounds[1]:
        raise ValueError(
            f"`{name}` must be two whole numbers, {least} <= least <= largest; got "
            f"{_shown(bounds)}."
        )


def as_number(value: Any, name: str, example: str) -> float:
    """A real number, of Python, NumPy or JAX; raises a `ValueError` for what is none.

    Traced numbers are none: what they become is fixed when a function is traced.
    """
    try:
        if isinstance(value, str | bytes | bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError) as e:
        raise ValueError(
            f"{name} must be one number, say {example}, and no traced one; got "
            f"{_shown(value)}."
        ) from e


def check_function(value: Any, name: str, example: str) -> None:
    """Raises a `ValueError` unless `value` can be called."""
    if not callable(value):
        raise ValueError(
            f"`{name}` must be a function, say `{example}`; got {_shown(value)}."
        )


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """The arguments of a user's function, whatever its annotations are.

    Raises as `inspect.signature` does for what does not say them.
    """
    return inspect.signature(function, **_UNEVALUATED)


def check_key(key: Any) -> None:
    """Raises a `ValueError` unless `key` is a PRNG key of JAX."""
    dtype = getattr(key, "dtype", None)
    is_new = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    is_old = dtype == jnp.uint32 and key.shape == _raw_key_shape()
    if not is_old and not (is_new and key.ndim == 0):
        raise ValueError(
            f"`key` must be one PRNG key, say `jax.random.key(0)`; got {_shown(key)}."
        )


# How many numbers a key is, the default implementation of keys says.
def _raw_key_shape() -> tuple[int, ...]:
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape


def as_seed(seed: Any) -> int:
    """A whole number of Python's, for `jax.random.key`, from a number or a scalar array."""
    try:
        if isinstance(seed, bool):
            raise TypeError
        number = operator.index(seed)
    except TypeError as e:
        raise ValueError(
            f"`seed` must be a whole number that is not traced, say 0; got {_shown(seed)}."
        ) from e
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"`seed` must have 64 bits at most; got {_shown(seed)}.")
    return number


def as_path(path: Any, name: str) -> pathlib.Path:
    """A path, in the home folder where it begins so; a `ValueError` for what is none."""
    wanted = "a path, say `'folder/name'` or a `pathlib.Path`"
    check_kind(path, str | os.PathLike, f"`{name}`", wanted)
    try:
        return pathlib.Path(path).expanduser()
    except RuntimeError:
        # There is no home, or none of that name.
        return pathlib.Path(path)


def is_number(value: Any) -> bool:
    """Whether `value` is one real floating-point number, which has a gradient."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return value.ndim == 0 and bool(jnp.issubdtype(value.dtype, jnp.floating))
    return isinstance(value, float)


def is_real(value: Any) -> bool:
    """Whether `value` is of real numbers, or of truth values: an array, or a number."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        kinds = jnp.floating, jnp.integer, jnp.bool_
        return any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
    return isinstance(value, int | float)


def described(value: Any) -> str:
    """What a value is, for an error: its values may not be known."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return f"shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    return f"a {type(value).__name__}"


def as_int(value: Any) -> Any:
    """A whole number of NumPy's, an array to JAX, as one of Python's; else as it is."""
    return int(value) if isinstance(value, np.integer) else value


def as_tuple(values: Any) -> Any:
    """A sequence or a vector as a tuple, which can be hashed; anything else as it is."""
    if isinstance(values, np.ndarray | jax.Array) and values.ndim == 1:
        return tuple(values.tolist())
    is_sequence = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    return tuple(map(as_int, values)) if is_sequence else values


def _is_count(number: Any, least: int) -> bool:
    whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
    return whole and bool(number >= least)


def _choices(kind: type) -> list[str]:
    if not kind.__name__.startswith("Abstract"):
        return [kind.__name__]
    names = [name for each in kind.__subclasses__() for name in _choices(each)]
    return [name for name in names if not name.startswith("_")]


def _shown(value: Any) -> str:
    return textwrap.shorten(repr(value), 80, placeholder=" ...")
