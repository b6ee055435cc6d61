"""Data sets that are larger than the device, a piece at a time."""

from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Protocol, runtime_checkable, TypeVar

import numpy as np

from .._kinds import as_count, check_function, check_kind


_Data = TypeVar("_Data")


@runtime_checkable
class RandomAccess(Protocol):
    """A source with a length, and an example for each index below it.

    For example an array, a `numpy.memmap` of a file, or a data source of TensorFlow
    Datasets.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Slabs(Generic[_Data]):
    """A large data set in slabs, of which the device holds one at a time.

    Examples come in an endless order of epochs, each shuffled as a whole; the order depends
    only on the seed and the epoch's number. Slab $n$ consists of `size` consecutive
    examples, from number $n$ `size` on, so that every example is seen once per epoch. A
    slab is the same whichever slab was read before it. If slabs are read in order, a thread
    has already read the next one while the device computes.

    `slabs[n]` is slab $n$; `close`, or the end of a `with` block, ends the thread.

    **Attributes:** `size` and `seed`, and the `number` of examples.

    Grain does the reading and shuffling; another version of Grain may give another order.
    """

    def __init__(
        self,
        source: RandomAccess,
        size: int,
        make: Callable[[Any], _Data],
        *,
        seed: int = 0,
        ahead: int = 1,
    ):
        """**Arguments:**

        - `source`: the examples: arrays, or pytrees of them, all of the same shapes.
        - `size`: examples in a slab.
        - `make`: makes what `slabs[n]` returns, of a slab's examples stacked along a
            first axis.
        - `seed`: of the order, from 0 to $2^{32} - 1$.
        - `ahead`: slabs that are read ahead, and so held in the machine's memory; with 0
            there is no thread, and a slab is read when it is asked for.

        **Raises:**

        `ValueError` if `size` is not between 1 and the number of examples, `ahead` is below
        0, `seed` is out of range, or an argument is not of its kind.
        """
        # Imported here: it takes a while, and most tasks do without.
        import grain

        wanted = "examples by their number, say an array or a list"
        check_kind(source, RandomAccess, "`source`", wanted)
        check_function(make, "make", "lambda slab: slab")
        size = as_count(size, "size")
        ahead = as_count(ahead, "ahead", 0)
        seed = as_count(seed, "seed", 0)
        if size > len(source):
            raise ValueError(
                f"`size` must be between 1 and the number of examples, {len(source)}; got "
                f"{size}."
            )
        if seed >= 2**32:
            raise ValueError(f"`seed` must be below 2**32; got {seed}.")
        self.size = size
        self.seed = seed
        self.number = len(source)
        self._source = _Closable(source)
        order = grain.MapDataset.source(self._source).shuffle(seed=seed).repeat()  # pyright: ignore
        batches = order.batch(size, drop_remainder=True)
        # One thread, so that no source need be safe for several.
        options = grain.ReadOptions(num_threads=min(1, ahead), prefetch_buffer_size=ahead)
        self._reader = iter(batches.to_iter_dataset(options))
        self._make = make
        self._held: tuple[int, _Data] | None = None

    def __getitem__(self, n: int) -> _Data:
        """Slab $n$ = 0, 1, ... Only the one that was asked for last is held in memory.

        **Raises:**

        `RuntimeError` if it cannot be read, or the slabs are closed; `IndexError` if $n$ is
        below 0, `ValueError` if it is no whole number.
        """
        if not isinstance(n, int | np.integer):
            raise ValueError(f"Slabs are numbered 0, 1, 2 and so on; got {n}.")
        n = int(n)
        if n < 0:
            raise IndexError(f"Slabs are numbered from 0; got {n}.")
        if self._held is None or self._held[0] != n:
            # Let go of the old one first: there may be no room for two.
            self._held = None
            self._held = n, self._make(self._read(n))
        return self._held[1]

    def _read(self, n: int) -> Any:
        if self._source.closed:
            raise RuntimeError(
                f"Slab {n} was asked for after `close`: open the slabs again."
            )
        here = {"next_index": n}
        if self._reader.get_state() != here:
            self._reader.set_state(here)
        try:
            return next(self._reader)
        except BaseException as e:
            # What was being waited for is lost to the reader: it begins again from here.
            self._reader.set_state(here)
            if not isinstance(e, Exception):
                raise
            raise RuntimeError(
                f"Slab {n} cannot be read ({type(e).__name__}: {e}): see that its files "
                "are whole and where they were."
            ) from e

    def close(self) -> None:
        """Ends the thread, and frees the slab that is held."""
        self._source.closed, self._held = True, None
        self._reader.close()

    def __enter__(self) -> "Slabs[_Data]":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Closable:
    """A source that gives nothing more once it is closed.

    So that a thread in the middle of a slab ends with the example that it is at; Python
    waits for threads before it ends itself.
    """

    def __init__(self, source: RandomAccess):
        self.source, self.closed = source, False

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Any:
        if self.closed:
            raise RuntimeError("The slabs are closed.")
        return self.source[index]
