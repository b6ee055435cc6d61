"""Names that are looked up, and what to say of one that is not there."""

import difflib
from collections.abc import Iterable
from typing import Any


def suggest(name: Any, known: Iterable[str]) -> str:
    """What to choose in place of a name that is not there, the nearest one first."""
    known = list(known)
    nearest = difflib.get_close_matches(str(name), known, n=1)
    meant = "".join(f"did you mean '{near}'? Otherwise " for near in nearest)
    return f"{meant}choose one of {known}"
