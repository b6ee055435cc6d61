"""Output folders, tables and provenance."""

import contextlib
import datetime
import json
import os
import pathlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from .. import tasks
from .._files import LOCK, locked
from .._meta_training import Metrics
from .._names import suggest
from .._smoothing import last_tenth


# Of the meta-training curve that a weights file keeps, each the mean of a stretch.
_CURVE_POINTS = 40


class CommandError(Exception):
    """Arguments that make no sense; the message says what to type instead."""


def check_folder(
    path: pathlib.Path, overwrite: bool, own: Sequence[str] | None = None
) -> None:
    """Refuses an output folder that holds something, unless told otherwise.

    **Arguments:**

    - `own`: the names of the files that the command writes, if others may stand beside
        them.
    """
    if path.exists() and not path.is_dir():
        raise CommandError(f"{path} is a file: choose another folder with --output.")
    # A lock that was left says nothing of what is there.
    names = {p.name for p in path.iterdir()} - {LOCK} if path.is_dir() else set()
    found = names if own is None else names.intersection(own)
    if found and not overwrite:
        what = "is not empty" if own is None else f"holds {' and '.join(sorted(found))}"
        raise CommandError(
            f"The folder {path} {what}: choose another with --output, or pass --overwrite "
            f"to replace {'what is in it' if own is None else 'that'}."
        )


def new_folder(
    path: pathlib.Path, overwrite: bool, own: Sequence[str] | None = None
) -> pathlib.Path:
    """Makes an output folder; refuses as `check_folder`."""
    check_folder(path, overwrite, own)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise CommandError(
            f"Cannot make the folder {path} ({e.strerror}): choose another with --output."
        ) from e
    if not os.access(path, os.W_OK | os.X_OK):
        raise CommandError(_may_not_write(path))
    return path


def _may_not_write(path: pathlib.Path) -> str:
    return (
        f"You may not write into {path}: change its permissions, or choose another folder "
        "with --output."
    )


@contextlib.contextmanager
def output_folder(
    path: pathlib.Path, overwrite: bool, own: Sequence[str] | None = None
) -> Iterator[pathlib.Path]:
    """Makes an output folder as `new_folder`, and keeps other commands out of it."""
    new_folder(path, overwrite, own)
    with alone_in(path):
        # Another one may have come and gone in between.
        check_folder(path, overwrite, own)
        yield path


@contextlib.contextmanager
def alone_in(path: pathlib.Path) -> Iterator[None]:
    """A context in which no other command writes into the folder."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path))
        except BlockingIOError as e:
            raise CommandError(
                f"Another command is writing into {path}: wait for it, or choose another "
                "folder with --output."
            ) from e
        except PermissionError as e:
            raise CommandError(_may_not_write(path)) from e
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (path / LOCK).unlink()


class _Console(Console):
    """A console whose reader may go: the command goes on, and prints no more."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        hush()


def hush() -> None:
    """Sends what is still printed to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())


def check_outside(file: str, folder: pathlib.Path) -> None:
    """Refuses to overwrite a folder with the file that a run starts from, if any."""
    if file and folder.resolve() in pathlib.Path(file).resolve().parents:
        raise CommandError(
            f"--overwrite would remove {file}, which the run starts from: choose another "
            "folder with --output, or move the file."
        )


def console() -> Console:
    """Where commands print: wide enough for a table when there is no terminal."""
    # What is printed are names and paths of users, not rich's markup.
    out = _Console(markup=False)
    return out if out.is_terminal else _Console(width=100, markup=False)


def loss_table(title: str, rows: Sequence[tuple[str, np.ndarray]]) -> Table:
    """Mean and final training loss of each optimizer's curves (seeds, steps)."""
    table = Table(title=title)
    table.add_column("optimizer")
    for name in ("mean loss", "± s.e.", "last 10 %"):
        table.add_column(name, justify="right")
    for name, curves in rows:
        means = np.asarray(curves, np.float64).mean(axis=1)
        spread = means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else np.nan
        last = last_tenth(curves).mean()
        table.add_row(name, f"{means.mean():.4f}", f"{spread:.4f}", f"{last:.4f}")
    return table


def provenance(settings: Mapping[str, Any], seed: int, history: Metrics) -> dict[str, Any]:
    """What a weights file says of its making."""
    losses = np.asarray(history.meta_loss, np.float64)
    # JSON has no word for a number that is not finite.
    mean = lambda x: float(x.mean()) if np.isfinite(x.mean()) else str(x.mean())
    parts = np.array_split(losses, min(len(losses), _CURVE_POINTS))
    curve = [float(f"{x.mean():.4g}") if np.isfinite(x.mean()) else None for x in parts]
    return {
        "command": shlex.join(["equistar", *sys.argv[1:]]),
        "settings": json.loads(json.dumps(dict(settings), default=str)),
        "seed": seed,
        "meta_steps": len(losses),
        "meta_loss_first_10_percent": mean(losses[: max(1, len(losses) // 10)]),
        "meta_loss_last_10_percent": mean(last_tenth(losses)),
        "meta_training_curve": curve,
        "date": datetime.date.today().isoformat(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


def check_task(name: str) -> None:
    """Refuses the name of a task that there is not, as a wrong argument."""
    if name not in tasks.NAMED:
        raise CommandError(
            f"There is no task '{name}': {suggest(name, sorted(tasks.NAMED))}."
        )


def check_seed(seed: int) -> None:
    """Refuses a seed that JAX makes no key of its own of: one beyond 32 bits."""
    if not 0 <= seed < 2**32:
        raise CommandError(f"--seed must be from 0 to 2**32 - 1; got {seed}.")


def same_command() -> str:
    """What to type for the run to go on: the command itself, if it does not begin anew."""
    again = [a for a in sys.argv[1:] if a.replace("_", "-") != "--overwrite"]
    return shlex.join(["equistar", *again])
