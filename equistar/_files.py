"""Files that are there whole, or not at all."""

import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np


def write_atomically(path: pathlib.Path, write: Callable[[Any], object]) -> None:
    """Writes a file, atomically: the old one or the new one is there.

    **Arguments:**

    - `path`: the file to write or replace; its folder must be there.
    - `write`: is given the binary file.

    **Raises:**

    `OSError` if the file cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def link_or_copy(path: pathlib.Path, other: pathlib.Path) -> None:
    """A second name for a file; a copy where the file system has no such thing."""
    try:
        os.link(path, other)
    except OSError:
        write_atomically(other, lambda file: file.write(path.read_bytes()))


def write_npz_atomically(path: pathlib.Path, contents: dict[str, np.ndarray]) -> None:
    """Writes named arrays as one `.npz` archive, as `write_atomically`."""
    save: Any = np.savez
    write_atomically(path, lambda file: save(file, allow_pickle=False, **contents))
