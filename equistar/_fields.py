"""Whether the fields of a module hold what they are annotated with."""

import dataclasses
from typing import Any

import equinox as eqx


def check_fields(module: eqx.Module) -> None:
    """Raises a `ValueError` where a field holds no part of the kind that it is for.

    Looked at are fields that are annotated with a class of modules, and whole numbers.
    """
    for field in dataclasses.fields(module):
        value, kind = getattr(module, field.name), field.type
        what = f"`{field.name}` of {type(module).__name__}"
        if kind is int and isinstance(value, float):
            raise ValueError(f"{what} must be a whole number; got {value}.")
        if not isinstance(kind, type) or not issubclass(kind, eqx.Module):
            continue
        if isinstance(value, type):
            raise ValueError(
                f"{what} is a class and not a part: pass `{value.__name__}()` with its "
                "arguments."
            )
        if not isinstance(value, kind):
            raise ValueError(f"{what} must be {_described(kind)}; got {value!r:.60}.")


def _described(kind: Any) -> str:
    ours = [c for c in kind.__subclasses__() if c.__module__.startswith("equistar")]
    names = [c.__name__ for c in ours if not c.__name__.startswith(("_", "Abstract"))]
    concrete = [f"{name}(...)" for name in names]
    examples = f", say {' or '.join(concrete[:3])}" if concrete else ""
    return f"of the class {kind.__name__}{examples}"
