"""Tasks on data that are larger than the device."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from ._base import AbstractTask
from ._slabs import Slabs


class StreamedTask(eqx.Module):
    """A task on data that are larger than the device.

    **Attributes:**

    - `slabs`: opens the data; its argument is the number of slabs to read ahead.
    - `make`: makes the task of one slab.
    """

    slabs: Callable[[int], Slabs[Any]]
    make: Callable[[Any], AbstractTask]

    def first(self) -> AbstractTask:
        """The task of the first slab: a fixed sample of the data, for an evaluation."""
        with self.slabs(0) as slabs:
            return self.make(slabs[0])
