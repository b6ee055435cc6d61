"""Results on disk: named entries, each one atomic file, nothing unpickled."""

import abc
import contextlib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import numpy as np

from .._files import write_npz_atomically
from .._kinds import as_path


ABOUT = "about"
"""The name of the entry that says what all others were made with."""
LEFT_OUT = "left out"
"""In the header of an entry that says in a sentence what was not run, and why."""
_HEADER, _ARRAYS, _ARRAY = "header", "arrays", "array."


class Entry(eqx.Module):
    """What a store holds under a name.

    **Attributes:**

    - `header`: a dictionary of what JSON can hold.
    - `arrays`: by name.
    """

    header: dict[str, Any]
    arrays: dict[str, np.ndarray]


class AbstractStore(eqx.Module):
    """Where results, or the sweeps of baselines, are kept from one run to the next."""

    @abc.abstractmethod
    def load(self, name: str) -> Entry | None:
        """The entry of this name; `None` if there is none that can be read."""

    @abc.abstractmethod
    def save(self, name: str, entry: Entry) -> None:
        """Keeps an entry, in place of an older one of its name."""


class NoStore(AbstractStore):
    """Keeps nothing."""

    def load(self, name: str) -> Entry | None:
        return None

    def save(self, name: str, entry: Entry) -> None:
        pass


class FolderStore(AbstractStore):
    """Keeps each entry in a file of its own, an `.npz` archive with a JSON header.

    Files are written atomically: a run that is killed leaves whole entries only.
    """

    path: pathlib.Path = eqx.field(static=True)

    def __init__(self, path: str | os.PathLike[str]):
        """**Arguments:**

        - `path`: the folder; made at the first entry.

        **Raises:**

        `ValueError` if it is not a path, or if a file is in its way.
        """
        self.path = as_path(path, "path")
        for place in (self.path, *self.path.parents):
            if place.is_file():
                raise ValueError(f"{place} is a file: results are kept in a folder.")

    def load(self, name: str) -> Entry | None:
        entry = _read(self._file(name))
        # What the others were made with cannot be made again.
        if entry is None and name == ABOUT and self.is_evaluation():
            raise ValueError(
                f"{self._file(ABOUT)} is damaged, so that nobody knows what the results "
                "beside it were made with: choose another folder, or remove them "
                "(`--overwrite` on the command line)."
            )
        return entry

    def save(self, name: str, entry: Entry) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        header = {"name": name, **entry.header, _ARRAYS: sorted(entry.arrays)}
        text = np.frombuffer(json.dumps(header, allow_nan=False).encode(), np.uint8)
        arrays = {_ARRAY + key: array for key, array in entry.arrays.items()}
        write_npz_atomically(self._file(name), {_HEADER: text, **arrays})

    def entries(self) -> Iterator[Entry]:
        """All entries that can be read, in the order of their files' names."""
        return (entry for _, entry in self._files())

    def damaged(self) -> list[pathlib.Path]:
        """The files of entries that cannot be read, in order."""
        return [path for path in sorted(self.path.glob("*.npz")) if _is_damaged(path)]

    def is_evaluation(self) -> bool:
        """Whether this is where an evaluation keeps its results, damaged or not."""
        return self._file(ABOUT).is_file()

    def clear(self) -> None:
        """Removes all entries, and no other file."""
        for path, _ in self._files():
            path.unlink()
        self._file(ABOUT).unlink(missing_ok=True)

    def _files(self) -> list[tuple[pathlib.Path, Entry]]:
        read = ((path, _read(path)) for path in sorted(self.path.glob("*.npz")))
        return [(path, entry) for path, entry in read if entry is not None]

    def _file(self, name: str) -> pathlib.Path:
        return self.path / f"{file_name(name)}.npz"


def file_name(name: str) -> str:
    """A name as a part of a path, with a digest where letters had to be changed."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:80]
    return safe if safe == name else f"{safe}-{digest(name)[:6]}"


def digest(value: Any) -> str:
    """Of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def difference(
    one: dict[str, Any], other: dict[str, Any], there: str = "there", here: str = "here"
) -> str:
    """The settings that differ, as words; empty if none does."""
    # As JSON reads them back: tuples are lists there.
    other = json.loads(json.dumps(other))
    names = [n for n in {**one, **other} if one.get(n) != other.get(n)]
    show = lambda settings, n: f"{settings.get(n, 'not set')!s:.40}"
    return ", ".join(f"{n}: {show(one, n)} {there}, {show(other, n)} {here}" for n in names)


# A file that cannot be read is one that has to be made again.
def _read(path: pathlib.Path) -> Entry | None:
    with contextlib.suppress(Exception):
        return _entry(path)
    return None


def _is_damaged(path: pathlib.Path) -> bool:
    try:
        _entry(path)
    except Exception:
        return True
    return False


# None for a file that is of something else; what NumPy or JSON cannot read raises.
def _entry(path: pathlib.Path) -> Entry | None:
    with np.load(path, allow_pickle=False) as archive:
        stored = {name: archive[name] for name in archive.files}
    if _HEADER not in stored:
        return None
    header = json.loads(stored.pop(_HEADER).tobytes())
    # Weights have a header too; an entry's says the name that its file has.
    if path.stem != file_name(header.get("name", "")):
        return None
    # Files of before the prefix are read as well.
    arrays = {name.removeprefix(_ARRAY): x for name, x in stored.items()}
    if header.get(_ARRAYS, sorted(arrays)) != sorted(arrays):
        raise ValueError(f"{path} lacks arrays.")
    return Entry(header, arrays)
