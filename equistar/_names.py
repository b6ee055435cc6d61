"""Names that are looked up, and what to say of one that is not there."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar


_T = TypeVar("_T")


def look_up(name: Any, table: Mapping[str, _T], what: str) -> _T:
    """What a table has by a name; a `ValueError` that lists the right ones if nothing."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"There is no {what} '{name}': {suggest(name, sorted(table))}.")
    return table[name]


def suggest(name: Any, known: Iterable[str]) -> str:
    """What to choose in place of a name that is not there, the nearest one first."""
    known = list(known)
    nearest = difflib.get_close_matches(str(name), known, n=1)
    meant = "".join(f"did you mean '{near}'? Otherwise " for near in nearest)
    return f"{meant}choose one of {known}"
