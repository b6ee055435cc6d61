"""The files of a run that grow with it: JSON lines, and events for TensorBoard."""

import contextlib
import json
import math
import pathlib
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, IO

import numpy as np
from jaxtyping import PyTree

from .._files import write_atomically
from .._meta_training import Metrics, stack_metrics
from .._recipes import Recipe
from .._serialisation import load_header, save, WeightsError
from ._output import provenance
from ._watchers import AbstractWatcher


FIGURE = "meta_loss.png"
"""The last file that a run writes: one that has it is whole."""
# What a run leaves beside its checkpoints; its recipe is written anew at once.
_FILES = "metrics.jsonl", "evaluation.jsonl", FIGURE
_WEIGHTS = "weights.npz", "weights_best.npz", "rescued-by-process-*.npz"
_EVENTS = "*tfevents*"


def remove_files(folder: pathlib.Path) -> None:
    """Removes those of an earlier run, so that none is taken for the next one's."""
    for pattern in (*_FILES, *_WEIGHTS, f"tensorboard/{_EVENTS}"):
        for path in folder.glob(pattern):
            path.unlink()


class JsonLines:
    """A file of one JSON object a line, each there as soon as it is written."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        self._file: IO[str] | None = None

    def restart(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Makes the file hold these lines and no others; more can follow."""
        self.close()
        text = "".join(_line(row) for row in rows)
        try:
            write_atomically(self.path, lambda file: file.write(text.encode()))
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as e:
            raise self._error(e) from e

    def append(self, row: Mapping[str, Any]) -> None:
        """Adds a line."""
        if self._file is None:
            raise ValueError("JsonLines is not open: call `restart` first.")
        try:
            self._file.write(_line(row))
            # For the system to keep: a process that is killed loses nothing.
            self._file.flush()
        except OSError as e:
            raise self._error(e) from e

    def close(self) -> None:
        """Closes the file, if it is open."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _error(self, e: OSError) -> OSError:
        # What could not be written is tried again when a file is closed.
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
        return _unwritten(self.path, e)


def _unwritten(path: pathlib.Path, e: OSError) -> OSError:
    return OSError(
        f"Cannot write {path} ({e.strerror}): make room, and start the same command again; "
        "it goes on from the last checkpoint."
    )


def read_json_lines(path: pathlib.Path) -> tuple[list[dict[str, Any]], list[str]]:
    """`(rows, complaints)`: the whole lines of a file, and what is wrong with others.

    **Raises:**

    `OSError` if the file cannot be read.
    """
    rows, complaints = [], []
    lines = path.read_bytes().split(b"\n")
    for i, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is not an object")
            rows.append(row)
        except ValueError:
            last = i == len(lines)
            complaints.append(
                f"{path}: the last line is not whole, since the run is writing it, or was "
                "killed; left out."
                if last
                else f"{path}: line {i} is damaged; left out."
            )
    return rows, complaints


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps({k: _plain(v) for k, v in row.items()}, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """For JSON, which has no word for a number that is not finite: null."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def metrics_row(step: int, metrics: Metrics, labels: Sequence[str] = ()) -> dict[str, Any]:
    """The line of a meta-step; with labels, also the meta-loss of each task."""
    row = {name: np.asarray(x) for name, x in vars(metrics).items()}
    each = row.pop("unroll_losses")
    row = {"step": step, **row}
    if len(each) > 1:
        row["task_losses"] = dict(zip(labels, each.tolist(), strict=True))
    return row


class MetricsLines(AbstractWatcher):
    """metrics.jsonl: a line for each meta-step, none twice and none missing.

    What stands behind the last checkpoint when a process is killed is made again, so the
    file begins with the checkpoint's own history.
    """

    def __init__(self, path: pathlib.Path, labels: Sequence[str]):
        self.lines = JsonLines(path)
        self.labels = labels

    def begin(self, history: Sequence[Metrics], theta: PyTree) -> None:
        rows = (metrics_row(i, m, self.labels) for i, m in enumerate(history, start=1))
        self.lines.restart(rows)

    def step(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        self.lines.append(metrics_row(step, metrics, self.labels))

    def end(self) -> None:
        self.lines.close()


class TensorBoard(AbstractWatcher):
    """Event files, for `tensorboard --logdir`."""

    def __init__(self, folder: pathlib.Path, labels: Sequence[str]):
        self.folder = folder
        self.labels = labels
        self._writer: Any = None

    def begin(self, history: Sequence[Metrics], theta: PyTree) -> None:
        # Imported late: only a run needs them.
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        self.folder.mkdir(parents=True, exist_ok=True)
        if not history:
            for path in self.folder.glob(_EVENTS):
                path.unlink()
        # Names have the second only: of two starts in one the later would replace a file.
        number = len(list(self.folder.glob(_EVENTS)))
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{number}"
        # The package's own writer has a thread, where nobody hears of a full disk.
        self._writer = RecordWriter(str(self.folder / name))
        # The last step that was kept may not have been told of; TensorBoard forgets the
        # events from there on, and they are written again.
        messages: Any = event_pb2
        start = messages.SessionLog(status=messages.SessionLog.START)
        version = messages.Event(file_version="brain.Event:2", wall_time=time.time())
        begun = messages.Event(step=len(history), session_log=start, wall_time=time.time())
        self._put([version, begun])
        if history:
            self.step(len(history), history[-1], theta)

    def step(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        row = metrics_row(step, metrics, self.labels)
        del row["step"]
        scalars = {f"task/{k}": v for k, v in row.pop("task_losses", {}).items()}
        self.write(step, row | scalars)

    def write(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes numbers of a meta-step; nothing before the run begins."""
        from tensorboardX.proto import event_pb2
        from tensorboardX.summary import scalar

        if self._writer is not None:
            messages: Any = event_pb2
            event = lambda s: messages.Event(step=step, wall_time=time.time(), summary=s)
            self._put(event(scalar(name, float(x))) for name, x in scalars.items())

    def _put(self, events: Iterable[Any]) -> None:
        try:
            for event in events:
                self._writer.write(event.SerializeToString())
            self._writer.flush()
        except OSError as e:
            # What could not be written is tried again when a file is closed.
            with contextlib.suppress(OSError):
                self._writer.close()
            self._writer = None
            raise _unwritten(self.folder, e) from e

    def evaluated(self, step: int, row: Mapping[str, Any]) -> None:
        """Writes an evaluation."""
        losses = row["mean_loss"].items()
        self.write(step, {f"evaluation/{name}": loss for name, loss in losses})

    def end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WeightsFile(AbstractWatcher):
    """weights.npz: what has been trained, every so many meta-steps.

    The last of them is left to the command: with its weights the run is finished.
    """

    def __init__(self, save: Callable[[PyTree, Metrics], None], every: int, last: int):
        self.save = save
        self.every = every
        self.last = last
        self.history: list[Metrics] = []

    def begin(self, history: Sequence[Metrics], theta: PyTree) -> None:
        self.history = list(history)

    def step(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        self.history.append(metrics)
        if step % self.every == 0 and step < self.last:
            self.save(theta, stack_metrics(self.history))

    def end(self) -> None:
        pass


def save_weights(
    path: pathlib.Path, recipe: Recipe, theta: PyTree, history: Metrics
) -> None:
    """Saves what a run has trained, with its recipe."""
    save(path, theta, provenance(recipe.settings(), recipe.seed, history))


def finished_steps(path: pathlib.Path) -> int:
    """The meta-steps that the weights in a file have seen; 0 if there are none to read."""
    try:
        return load_header(path)["provenance"]["meta_steps"]
    except (WeightsError, KeyError):
        return 0


class RecipeFile(AbstractWatcher):
    """recipe.json: what runs this run again. Whatever said that it is done goes."""

    def __init__(self, path: pathlib.Path, text: str, done: pathlib.Path):
        self.path = path
        self.text = text
        self.done = done

    def begin(self, history: Sequence[Metrics], theta: PyTree) -> None:
        self.done.unlink(missing_ok=True)
        write_atomically(self.path, lambda file: file.write(self.text.encode()))

    def step(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        pass

    def end(self) -> None:
        pass
