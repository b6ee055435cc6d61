"""Recipes in JSON files."""

import dataclasses
import json
import pathlib
import types
import typing
from typing import Any, Literal

from .._names import suggest
from ._recipe import Recipe


def recipe_text(recipe: Recipe) -> str:
    """A recipe as JSON, whole, for people and for `read_recipe`."""
    return json.dumps(dataclasses.asdict(recipe), indent=2) + "\n"


def read_recipe(path: pathlib.Path) -> Recipe:
    """The recipe in a file; what the file leaves out has its default.

    **Raises:**

    `FileNotFoundError` if there is no file, and `ValueError` that names the setting and
    the right ones if it is not a recipe.
    """
    try:
        # Some editors begin a file with a mark of its encoding.
        text = path.read_text("utf-8-sig")
        data = json.loads(text, object_pairs_hook=_each_once)
    except FileNotFoundError as e:
        raise FileNotFoundError(f"The recipe {path} is not there.") from e
    except IsADirectoryError as e:
        raise ValueError(
            f"{path} is a folder: give the path of a recipe in it, say its recipe.json."
        ) from e
    except (OSError, ValueError, RecursionError) as e:
        raise ValueError(f"{path} is no recipe in JSON: {e}.") from e
    return _typed(Recipe, data, path, "")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"it has '{name}' twice, so leave one of them out")
        found[name] = value
    return found


def _typed(kind: type, data: Any, path: pathlib.Path, place: str) -> Any:
    names = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(data, dict):
        where = f" in '{place[:-1]}'" if place else ""
        raise ValueError(f"{path} needs{where} settings by name: {names}.")
    for name in data:
        if name not in names:
            raise ValueError(
                f"{path} has the setting '{place}{name}', and there is none: "
                f"{suggest(place + name, [place + n for n in names])}."
            )
    hints = typing.get_type_hints(kind)
    return kind(
        **{n: _value(hints[n], value, path, place + n) for n, value in data.items()}
    )


def _value(hint: Any, value: Any, path: pathlib.Path, place: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _typed(typing.cast(type, hint), value, path, place + ".")
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{path}: '{place}' must be a list; got {value!r}.")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, v, path, place) for v in value)
    if typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ValueError(
                f"{path}: '{place}' must be one of {list(choices)}; got {value!r}."
            )
        return value
    return _plain(hint, value, path, place)


_PLAIN: dict[type, tuple[str, type | types.UnionType]] = {
    int: ("a whole number", int),
    float: ("a number", int | float),
    str: ("text", str),
}


def _plain(hint: type, value: Any, path: pathlib.Path, place: str) -> Any:
    name, accepted = _PLAIN[hint]
    # In Python, though not in JSON, true is a whole number.
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise ValueError(f"{path}: '{place}' must be {name}; got {value!r}.")
    try:
        return hint(value)
    except OverflowError:
        raise ValueError(f"{path}: '{place}' is too large a number.") from None
