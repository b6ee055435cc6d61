"""A run's whole state on the disk, so that the run goes on after anything."""

import abc
import contextlib
import json
import pathlib
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from ._devices import gather, spread_like
from ._files import write_npz_atomically
from ._logger import Metrics, metrics_from, stack_metrics


FORMAT, FORMAT_VERSION = "equistar checkpoint", 1
_HEADER, _HISTORY = "header", "history."
_DAMAGE = OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile


class CheckpointError(Exception):
    """A checkpoint that cannot be written or used; the message says what to do."""


class AbstractCheckpoints(eqx.Module):
    """Keeps the state of a run."""

    @abc.abstractmethod
    def locked(self) -> Any:
        """A context in which no other run can use the same place."""

    @abc.abstractmethod
    def restore(self, fresh: PyTree) -> tuple[PyTree, Metrics | None]:
        """The newest state that was kept and its history, or `fresh` and none.

        **Arguments:**

        - `fresh`: the state at the start of the run, whose structure, devices and parts
            that are no arrays the restored one has.
        """

    @abc.abstractmethod
    def save(
        self, step: int, state: PyTree, history: Sequence[Metrics], *, last: bool
    ) -> None:
        """Keeps the state after `step` meta-steps, if it is time to.

        **Arguments:**

        - `history`: the metrics of all of them.
        - `last`: whether the run ends here, so that it is kept whatever the time.
        """


class NoCheckpoints(AbstractCheckpoints):
    """Keeps nothing."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def restore(self, fresh: PyTree) -> tuple[PyTree, Metrics | None]:
        return fresh, None

    def save(
        self, step: int, state: PyTree, history: Sequence[Metrics], *, last: bool
    ) -> None:
        pass


class Checkpoints(AbstractCheckpoints):
    """A file every so many meta-steps; the same run started again goes on from the newest.

    It goes on to the same bits as a run that was never interrupted, on the same devices;
    on others, to rounding. Files are written whole or not at all, hold arrays and JSON
    only, and a damaged one is named and the one before it used.

    **Attributes:**

    - `folder`: of the run; made if it is not there. Two runs cannot share one.
    - `every`: meta-steps between two files.
    - `keep`: how many of the newest files are kept.
    - `settings`: what the run is made of, for JSON: a run with others is refused.
    """

    folder: pathlib.Path = eqx.field(converter=pathlib.Path)
    every: int = 100
    keep: int = 3
    settings: Mapping[str, Any] = eqx.field(default_factory=dict)

    def __check_init__(self):
        if self.every < 1 or self.keep < 1:
            raise ValueError(
                f"`every` and `keep` must be at least 1; got {self.every} and {self.keep}."
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = (self.folder / ".lock").open("w")
        except OSError as e:
            raise CheckpointError(
                f"Cannot write into {self.folder} ({e.strerror}): choose another folder."
            ) from e
        # The system gives the lock back however the process ends.
        with handle:
            if jax.process_index() == 0 and not _lock(handle):
                raise CheckpointError(
                    f"Another run is using {self.folder}: wait for it, or choose another "
                    "folder."
                )
            yield

    def restore(self, fresh: PyTree) -> tuple[PyTree, Metrics | None]:
        for path in self._newest_first():
            try:
                header, arrays = _read(path)
            except _DAMAGE as e:
                warnings.warn(f"{path} is damaged and not used: {e}.", stacklevel=3)
                continue
            self._check_settings(path, header["settings"])
            return _restored(path, header, arrays, fresh)
        return fresh, None

    def history(self) -> Metrics | None:
        """The metrics that the newest whole checkpoint holds, or none."""
        for path in self._newest_first():
            with contextlib.suppress(*_DAMAGE):
                return _metrics(_read(path)[1])
        return None

    def clear(self) -> None:
        """Deletes the checkpoints, unless another run is using them."""
        with self.locked():
            for path in self._newest_first():
                path.unlink(missing_ok=True)

    def save(
        self, step: int, state: PyTree, history: Sequence[Metrics], *, last: bool
    ) -> None:
        if step % self.every and not last:
            return
        contents = _contents(state, stack_metrics(history), dict(self.settings))
        if jax.process_index():
            return
        path = self.folder / f"checkpoint-{step:010d}.npz"
        try:
            write_npz_atomically(path, contents)
        except OSError as e:
            raise CheckpointError(
                f"Cannot write {path} ({e.strerror}): make room or choose another folder, "
                "and start the same run again; it goes on from the last whole checkpoint."
            ) from e
        for old in self._newest_first()[self.keep :]:
            old.unlink(missing_ok=True)

    def _newest_first(self) -> list[pathlib.Path]:
        return sorted(self.folder.glob("checkpoint-*.npz"), reverse=True)

    def _check_settings(self, path: pathlib.Path, saved: dict[str, Any]) -> None:
        ours = json.loads(json.dumps(dict(self.settings), default=str))
        changed = [k for k in sorted({*ours, *saved}) if ours.get(k) != saved.get(k)]
        if changed:
            k = changed[0]
            raise CheckpointError(
                f"{path} was written by a run with {k} = {saved.get(k)!r}, and this one "
                f"has {ours.get(k)!r}: use the same settings, or another folder."
            )


def _lock(handle: Any) -> bool:
    try:
        import fcntl
    except ImportError:  # Not on Windows, where runs have to keep apart by themselves.
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _leaves(state: PyTree) -> dict[str, Array]:
    """Every array by its place, PRNG keys as their data."""
    arrays = jtu.tree_flatten_with_path(eqx.filter(state, eqx.is_array))[0]
    return {jtu.keystr(path): _plain(x) for path, x in arrays}


def _plain(x: Array) -> Array:
    return jr.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _contents(
    state: PyTree, history: Metrics, settings: dict[str, Any]
) -> dict[str, np.ndarray]:
    leaves = {name: gather(x) for name, x in _leaves(state).items()}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "settings": settings,
        "leaves": list(leaves),
    }
    text = json.dumps(header, default=str).encode()
    contents = {f"leaf_{i}": x for i, x in enumerate(leaves.values())}
    contents |= {_HISTORY + k: np.asarray(v) for k, v in vars(history).items()}
    return contents | {_HEADER: np.frombuffer(text, np.uint8)}


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(path, allow_pickle=False) as archive:
        # Reading every entry checks its checksum.
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays.pop(_HEADER).tobytes())
    if header["format"] != FORMAT or header["format_version"] > FORMAT_VERSION:
        raise ValueError("it is not a checkpoint that this version of equistar reads")
    return header, arrays


def _restored(
    path: pathlib.Path,
    header: dict[str, Any],
    arrays: dict[str, np.ndarray],
    fresh: PyTree,
) -> tuple[PyTree, Metrics]:
    expected = _leaves(fresh)
    found = {name: arrays[f"leaf_{i}"] for i, name in enumerate(header["leaves"])}
    for name in sorted({*expected, *found}):
        ours = expected[name].shape if name in expected else "nothing"
        theirs = found[name].shape if name in found else "nothing"
        if ours != theirs:
            raise CheckpointError(
                f"{path} was written by another run: its state has {theirs} at {name}, and "
                f"this one {ours}. Use the same settings, or another folder."
            )
    paths, structure = jtu.tree_flatten_with_path(eqx.filter(fresh, eqx.is_array))
    leaves = [spread_like(found[jtu.keystr(place)], x) for place, x in paths]
    state = eqx.combine(jtu.tree_unflatten(structure, leaves), fresh)
    return state, _metrics(arrays)


def _metrics(arrays: dict[str, np.ndarray]) -> Metrics:
    columns = {k: x for k, x in arrays.items() if k.startswith(_HISTORY)}
    return metrics_from({k.removeprefix(_HISTORY): x for k, x in columns.items()})
