"""Leaves that stack layers on leading axes."""

from typing import Any

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import PyTree

from ._base import AbstractOptimizer
from ._learned import (
    AbstractLearnedOptimizer,
    init_tree,
    LearnedOptimizerState,
    update_tree,
)
from ._trees import broadcast_prefix, check_grads, check_params


class Stacked(AbstractOptimizer):
    """Treats leaves that stack layers on leading axes as that many separate tensors.

    A scanned transformer keeps the weights of all its layers in one array. A learned
    optimizer must not treat this array as one tensor, because stacking would change the
    factored axes and the normalisers.
    """

    optimizer: AbstractLearnedOptimizer
    counts: tuple[int, ...] = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    def __init__(self, optimizer: AbstractLearnedOptimizer, stacked_axes: PyTree[int]):
        """**Arguments:**

        - `optimizer`: the learned optimizer to wrap.
        - `stacked_axes`: how many leading axes of each leaf stack separate tensors: an
            integer, or a pytree prefix of the parameters, say
            `{"blocks": 1, "embedding": 0}`.

        **Raises:**

        `ValueError` if `optimizer` is not a learned optimizer, or `stacked_axes` holds
        anything but integers of at least 0; at the first use, if a leaf has fewer axes.
        """
        if not isinstance(optimizer, AbstractLearnedOptimizer):
            raise ValueError(
                f"`Stacked` takes a learned optimizer, say `STAR(key=...)`; got "
                f"{optimizer!r:.80}."
            )
        counts, self.structure = jtu.tree_flatten(stacked_axes)
        if not all(type(n) is int and n >= 0 for n in counts):
            raise ValueError(
                "`stacked_axes` must hold integers of at least 0 (the number of leading "
                f"axes that stack separate tensors); got {stacked_axes}."
            )
        self.optimizer = optimizer
        self.counts = tuple(counts)

    def init(self, params: PyTree) -> LearnedOptimizerState:
        check_params(params)
        return init_tree(self.optimizer, self._counts(params), params)

    def update(
        self,
        grads: PyTree,
        state: LearnedOptimizerState,
        params: PyTree,
        **extra: Any,
    ) -> tuple[PyTree, LearnedOptimizerState]:
        del extra
        check_grads(grads, params)
        stacked = self._counts(params)
        return update_tree(self.optimizer, stacked, grads, state, params)

    def _counts(self, params: PyTree) -> list[int]:
        prefix = self.structure.unflatten(self.counts)
        counts = broadcast_prefix(prefix, params)
        leaves = jtu.tree_leaves_with_path(params)
        for n, (path, leaf) in zip(counts, leaves, strict=True):
            if leaf.ndim < n:
                raise ValueError(
                    f"`stacked_axes` says that {n} leading axes of params"
                    f"{jtu.keystr(path)} are stacked, but its shape is {leaf.shape}."
                )
        return counts
