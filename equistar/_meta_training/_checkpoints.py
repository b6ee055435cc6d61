"""A run's whole state on the disk, so that the run goes on after anything."""

import abc
import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._devices import alike_everywhere, all_or_none, any_process
from .._files import link_or_copy, LOCK, locked, write_npz_atomically
from .._kinds import as_path, check_count, check_kind
from .._smoothing import smoothed
from .._warn import warn
from ._checkpoint_file import (
    check_run,
    checkpoint_contents,
    checkpoint_metrics,
    CheckpointError,
    DamagedCheckpoint,
    read_checkpoint,
    restore_checkpoint,
)
from ._logger import Metrics, stack_metrics
from ._settings import fixed_parts, plain_settings


# The names that `save` gives, and no copies of them by other names.
_NEWEST, _BEST = (f"{name}-{'[0-9]' * 10}.npz" for name in ("checkpoint", "best"))


class AbstractCheckpoints(eqx.Module):
    """Keeps the state of a run."""

    @abc.abstractmethod
    def locked(self) -> Any:
        """A context in which no other run can use the same place."""

    @abc.abstractmethod
    def for_run(self, parts: Mapping[str, Any]) -> "AbstractCheckpoints":
        """The same, of a run that is made of `parts`, by name: states of a run of other
        parts are refused.
        """

    @abc.abstractmethod
    def restore(self, fresh: PyTree) -> tuple[PyTree, Metrics | None]:
        """The newest state that was kept and its history, or `fresh` and none.

        **Arguments:**

        - `fresh`: the state at the start of the run. The restored state gets its structure,
            its devices, and its parts that are not arrays.
        """

    @abc.abstractmethod
    def save(
        self, step: int, state: PyTree, history: Sequence[Metrics], *, last: bool
    ) -> None:
        """Keeps the state after `step` meta-steps, if it is time to.

        **Arguments:**

        - `step`: the number of meta-steps made.
        - `state`: after them.
        - `history`: the metrics of all of them.
        - `last`: whether the run ends here, so that the state must be kept.
        """


class NoCheckpoints(AbstractCheckpoints):
    """Keeps nothing."""

    @contextmanager
    def locked(self) -> Iterator[None]:
        yield

    def for_run(self, parts: Mapping[str, Any]) -> "NoCheckpoints":
        return self

    def restore(self, fresh: PyTree) -> tuple[PyTree, Metrics | None]:
        return fresh, None

    def save(
        self, step: int, state: PyTree, history: Sequence[Metrics], *, last: bool
    ) -> None:
        pass


@dataclass
class _Clock:
    """Remembers when it was last set."""

    set_at: float = field(default_factory=time.monotonic)

    def set(self) -> None:
        self.set_at = time.monotonic()

    def minutes(self) -> float:
        return (time.monotonic() - self.set_at) / 60


class Checkpoints(AbstractCheckpoints):
    """A file every few meta-steps. The same run, started again, continues from the newest.

    On the same devices, the results are bitwise those of a run that was never interrupted;
    on other devices they agree up to rounding. Files are written completely or not at all,
    and hold only arrays and JSON. A damaged file is named, and the one before it is used.

    **Attributes:**

    - `folder`: of the run; made if it is not there. Two runs cannot share one.
    - `every`: meta-steps between two files.
    - `keep`: how many of the newest files are kept, besides the best: that at which the
        meta-loss, smoothed over about 50 meta-steps, was lowest.
    - `settings`: more settings of the run, by name; a run with different settings is
        refused. They may be numbers, strings, lists, dicts, arrays and modules of these.
        The unroll, the estimator, `theta`, `trainable` and the key are always compared:
        arrays by shape and dtype only (the key by its value), functions by name only. The
        outer optimizer and private fields are not: list what you might change there, say
        `{"rate": 1e-3}`.
    - `minutes`: after this time, a file is written even before `every` meta-steps.

    **Raises:**

    `ValueError` if an attribute is not of its kind; in use, [`equistar.CheckpointError`][]
    if the folder cannot be used, or belongs to another run.
    """

    folder: pathlib.Path = eqx.field(converter=lambda x: as_path(x, "folder"))
    every: int = 100
    keep: int = 3
    settings: Mapping[str, Any] = eqx.field(default_factory=dict)
    minutes: float = 10.0
    _clock: _Clock = eqx.field(default_factory=_Clock)
    _run: Any = None

    def __check_init__(self):
        wanted = "a number of minutes, say 10.0"
        check_kind(self.minutes, int | float | np.number, "`minutes`", wanted)
        if not self.minutes > 0:
            raise ValueError(f"`minutes` must be positive; got {self.minutes}.")
        check_count(self.every, "every")
        check_count(self.keep, "keep")
        plain_settings(self.settings)

    def for_run(self, parts: Mapping[str, Any]) -> "Checkpoints":
        return dataclasses.replace(self, _run=fixed_parts(parts))

    @contextmanager
    def locked(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                # The processes of one run share its folder.
                if jax.process_index() == 0:
                    stack.enter_context(locked(self.folder))
                    # What a kill in the middle of a write has left.
                    for name in (_NEWEST, _BEST):
                        for path in self.folder.glob(f".{name}.*"):
                            path.unlink(missing_ok=True)
            except BlockingIOError as e:
                raise CheckpointError(
                    f"Another run is using {self.folder}: wait for it, or choose another "
                    "folder."
                ) from e
            except OSError as e:
                raise CheckpointError(
                    f"Cannot write into {self.folder} ({e.strerror}): choose another "
                    "folder."
                ) from e
            yield

    def restore(self, fresh: PyTree) -> tuple[PyTree, Metrics | None]:
        self._clock.set()
        with all_or_none():
            newest = self._newest_first()
            # The best one is a state of the run like any, if an earlier one.
            best = self._best() if newest else []
            state, history = self._first_whole([*newest, *best], fresh)
            if newest and history is None:
                raise CheckpointError(
                    f"None of the {len(newest)} checkpoints in {self.folder} is whole: "
                    "choose another folder, or remove them to begin anew (`--overwrite` on "
                    "the command line, `clear` of `Checkpoints` in Python)."
                )
        self._check_alike(history)
        return state, history

    def restore_best(self, fresh: PyTree) -> tuple[PyTree, Metrics | None]:
        """The best state that was kept and its history, or `fresh` and none."""
        return self._first_whole(self._best(), fresh)

    def _first_whole(
        self, paths: Sequence[pathlib.Path], fresh: PyTree
    ) -> tuple[PyTree, Metrics | None]:
        for path in paths:
            try:
                header, arrays = read_checkpoint(path)
            except DamagedCheckpoint as e:
                warn(f"{path} is damaged and not used: {e}.")
                continue
            check_run(path, header, self.settings, self._run)
            return restore_checkpoint(path, header, arrays, fresh)
        return fresh, None

    def history(self) -> Metrics | None:
        """The metrics that the newest whole checkpoint holds, or none.

        **Raises:**

        `CheckpointError` if a run with other settings wrote it.
        """
        for path in self._newest_first():
            with contextlib.suppress(DamagedCheckpoint):
                header, arrays = read_checkpoint(path)
                check_run(path, header, self.settings, self._run)
                return checkpoint_metrics(arrays)
        return None

    def clear(self) -> None:
        """Deletes the checkpoints, unless another run is using them."""
        with self.locked():
            for path in (*self._newest_first(), *self._best()):
                path.unlink(missing_ok=True)

    def save(
        self, step: int, state: PyTree, history: Sequence[Metrics], *, last: bool
    ) -> None:
        late = self._clock.minutes() >= self.minutes
        if not any_process(late or last or step % self.every == 0):
            return
        self._clock.set()
        contents = checkpoint_contents(
            state, stack_metrics(history), plain_settings(self.settings), self._run
        )
        if jax.process_index():
            return
        path = self.folder / f"checkpoint-{step:010d}.npz"
        try:
            write_npz_atomically(path, contents)
            losses = smoothed(np.array([float(m.meta_loss) for m in history]))
            self._keep_if_best(path, step, np.nan_to_num(losses, nan=np.inf))
        except OSError as e:
            raise CheckpointError(
                f"Cannot write {path} ({e.strerror}): make room or choose another folder, "
                "and start the same run again; it goes on from the last whole checkpoint."
            ) from e
        # One of a later step was not whole, or the run had not begun before it.
        for old in [p for p in self._newest_first() if p <= path][self.keep :]:
            old.unlink(missing_ok=True)

    def are_of_runs(self) -> bool:
        """Whether a run has begun in the folder, whatever else there is."""
        checkpoints = self._newest_first()
        return bool(checkpoints) or (self.folder / LOCK).is_file()

    def newest(self) -> pathlib.Path | None:
        """The file of the last state that was kept, damaged or not, or none."""
        return next(iter(self._newest_first()), None)

    def _newest_first(self) -> list[pathlib.Path]:
        return sorted(self.folder.glob(_NEWEST), reverse=True)

    def _best(self) -> list[pathlib.Path]:
        return sorted(self.folder.glob(_BEST), reverse=True)

    def _keep_if_best(self, path: pathlib.Path, step: int, losses: np.ndarray) -> None:
        # The step in the name of the best says what to compare with. One of a later step
        # is of this very run, before it was set back.
        former = self._best()
        steps = [int(p.stem.removeprefix("best-")) for p in former]
        if any(n > step or losses[n - 1] <= losses[step - 1] for n in steps if n != step):
            return
        # A second name for the same file costs nothing, and is there whole or not at all.
        best = self.folder / f"best-{step:010d}.npz"
        link_or_copy(path, best)
        for old in former:
            if old != best:
                old.unlink(missing_ok=True)

    def _check_alike(self, history: Metrics | None) -> None:
        losses = np.zeros(0) if history is None else np.asarray(history.meta_loss)
        last = float(losses[-1]) if len(losses) else 0.0
        restored = np.array([len(losses), last], np.float64)
        # As bits, of which those of NaN are equal too.
        if not alike_everywhere(restored.view(np.int32)):
            raise CheckpointError(
                f"The processes of the run do not find the same checkpoints (this one has "
                f"made {len(losses)} meta-steps): {self.folder} must be one folder, on a "
                "file system that all of them share."
            )
