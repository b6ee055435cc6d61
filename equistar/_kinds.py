"""Arguments that must be of a kind, and what to say of one that is not."""

import dataclasses
import textwrap
from typing import Any

import equinox as eqx
import numpy as np


def check_kind(value: Any, kind: type, name: str, wanted: str = "") -> None:
    """Raises a `ValueError` unless `value` is an instance of `kind`.

    **Arguments:**

    - `name`: of the argument, as the message begins.
    - `wanted`: what it must be, with an example; by default the classes of that kind.
    """
    if isinstance(value, kind):
        return
    if isinstance(value, type) and issubclass(value, kind):
        raise ValueError(
            f"{name} is a class and not an instance: pass `{value.__name__}()` with its "
            "arguments."
        )
    wanted = wanted or f"an instance of {kind.__name__} ({', '.join(_choices(kind))})"
    raise ValueError(f"{name} must be {wanted}; got {_shown(value)}.")


def check_parts(module: eqx.Module) -> None:
    """Raises a `ValueError` where a part of a module is not of its field's kind."""
    for field in dataclasses.fields(module):
        if isinstance(field.type, type) and issubclass(field.type, eqx.Module):
            name = f"`{field.name}` of {type(module).__name__}"
            check_kind(getattr(module, field.name), field.type, name)


def check_count(number: Any, name: str) -> None:
    """Raises a `ValueError` unless `number` is a whole one of at least 1."""
    if not isinstance(number, int | np.integer) or number < 1:
        raise ValueError(
            f"`{name}` must be a whole number of at least 1; got {_shown(number)}."
        )


def _choices(kind: type) -> list[str]:
    if not kind.__name__.startswith("Abstract"):
        return [kind.__name__]
    names = [name for each in kind.__subclasses__() for name in _choices(each)]
    return [name for name in names if not name.startswith("_")]


def _shown(value: Any) -> str:
    return textwrap.shorten(repr(value), 80, placeholder=" ...")
