"""Meta-training on data that are larger than the device."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.tree_util as jtu

from .._devices import put_on_all_devices
from .._inner_training import AbstractMetaLoss, InnerTraining, TrainingBatch
from .._kinds import check_count, check_function, check_parts
from .._unrolls import AbstractUnroll
from ..tasks import AbstractTask, Slabs
from ._feed import AbstractFeed


class SlabFeed(AbstractFeed):
    """Inner training on a slab of a large data set, with a new slab every few meta-steps.

    Meta-step $n$ trains on slab $\\lfloor n / k \\rfloor$, whatever came before, so that a
    run that continues from a checkpoint gives bitwise the same results. Networks in
    training continue on the new slab. Nothing is compiled again: what is static in the
    task, such as the bounds of its loss, is taken from slab 0.

    !!! Example

        ```python
        make = lambda dataset: eqs.tasks.Classification(dataset, eqs.tasks.ConvNet())
        with eqs.tasks.tfds_image_slabs("imagenet_resized/32x32") as slabs:
            feed = eqs.SlabFeed(slabs, make, every=100)
            result = eqs.meta_train(feed, eqs.PES(), star, steps=10_000, key=key)
        ```

    While one slab replaces another, the device holds both.

    **Attributes:**

    - `slabs`: the data.
    - `make_task`: makes the task of a slab, of the same shapes for all.
    - `every`: $k$, meta-steps on each slab. If a slab takes longer to read than this many
        meta-steps, training waits for it.
    - `meta_loss`: as for [`equistar.InnerTraining`][].

    **Raises:**

    `ValueError` if an argument is not of its kind, or `every` is below 1; in training, if
    the tasks of two slabs have arrays of different shapes.
    """

    slabs: Slabs[Any]
    make_task: Callable[[Any], AbstractTask]
    every: int = 100
    meta_loss: AbstractMetaLoss = TrainingBatch()
    _kept: dict[str, Any] = eqx.field(default_factory=dict, init=False, repr=False)

    def __check_init__(self):
        check_count(self.every, "every")
        check_function(
            self.make_task, "make_task", "lambda dataset: Classification(dataset)"
        )
        check_parts(self)

    def at(self, step: int) -> AbstractUnroll:
        number, kept = step // self.every, self._kept
        if kept.get("number") != number:
            # Both, so that a slab that cannot be had is asked for again.
            kept.pop("number", None)
            kept.pop("unroll", None)
            kept["unroll"] = put_on_all_devices(
                InnerTraining(self._task(number), self.meta_loss)
            )
            kept["number"] = number
        return kept["unroll"]

    def _task(self, number: int) -> AbstractTask:
        """The arrays of the slab's task, in what is fixed in the first slab's."""
        if "first" not in self._kept:
            arrays, rest = eqx.partition(self.make_task(self.slabs[0]), eqx.is_array)
            leaves, structure = jtu.tree_flatten(arrays)
            self._kept["first"] = _kinds(leaves), structure, rest
        kinds, structure, rest = self._kept["first"]
        task = self.make_task(self.slabs[number])
        leaves = jtu.tree_leaves(eqx.filter(task, eqx.is_array))
        if _kinds(leaves) != kinds:
            raise ValueError(
                f"The task of slab {number} has arrays of other shapes than that of slab "
                "0: `make_task` must make the same of every slab."
            )
        return eqx.combine(jtu.tree_unflatten(structure, leaves), rest)


def _kinds(leaves: list[Any]) -> list[tuple[tuple[int, ...], str]]:
    return [(x.shape, str(x.dtype)) for x in leaves]
