"""Files that are there whole, or not at all, and folders of one process at a time."""

import contextlib
import errno
import os
import pathlib
import secrets
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, IO

import numpy as np


LOCK = ".lock"
# By name: not every system has all of them.
_FULL = "ENOSPC", "EFBIG", "EDQUOT"


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """A context in which no other process can lock the folder.

    **Raises:**

    `BlockingIOError` if another one has locked it, or another `OSError` if it cannot be
    written to.
    """
    path = folder / LOCK
    # The system gives the lock back however the process ends. The file says nothing, and
    # whoever holds the lock may remove it: then it was not this one that was locked.
    with path.open("w") as file:
        _lock(file)
        if not (path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat())):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), str(path))
        yield


# Where there is no such thing, on Windows and on some network file systems, processes have
# to keep apart by themselves.
def _lock(file: IO[str]) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return


def write_atomically(path: pathlib.Path, write: Callable[[Any], object]) -> None:
    """Writes a file, atomically: the old one or the new one is there.

    **Arguments:**

    - `path`: the file to write or replace; its folder must be there.
    - `write`: is given the binary file.

    **Raises:**

    `OSError` if the file cannot be written.
    """
    # A link goes on to name what it names.
    path = pathlib.Path(os.path.realpath(path))
    new = _beside(path)
    try:
        with new.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException as e:
        # Of a file system that has become read-only, nothing can be removed either.
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        # Where there is no room, the system says no name.
        if isinstance(e, OSError) and e.filename in (None, str(new)):
            e.filename = str(path)
        raise


def where_to_write(error: OSError) -> str:
    """What to do about a file that could not be written, as a sentence."""
    if errno.errorcode.get(error.errno or 0) in _FULL:
        return "Make room, or choose another folder."
    return "Choose a folder that is there and that you may write to."


def link_or_copy(path: pathlib.Path, other: pathlib.Path) -> None:
    """A second name for a file, or a copy where the file system has no such thing.

    A file that has that name already is replaced, atomically.
    """
    link = _beside(other)
    try:
        os.link(path, link)
        os.replace(link, other)
        # Where both names are of one file already, the link is left.
        link.unlink(missing_ok=True)
    except OSError:
        write_atomically(other, lambda file: file.write(path.read_bytes()))


def _beside(path: pathlib.Path) -> pathlib.Path:
    """A name that no other file has, in the same folder."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


def write_npz_atomically(path: pathlib.Path, contents: dict[str, np.ndarray]) -> None:
    """Writes named arrays as one `.npz` archive, as `write_atomically`."""

    # Not by `np.savez`, whose own arguments are names that no array could have.
    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in contents.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(
                        member, np.asanyarray(array), allow_pickle=False
                    )

    write_atomically(path, write)
