"""Unrolls whose data change while they are meta-trained on."""

import abc
from typing import Any

import equinox as eqx

from .._unrolls import AbstractUnroll, check_is_unroll


class AbstractFeed(eqx.Module):
    """The unroll of each meta-step, for unrolls whose data change."""

    @abc.abstractmethod
    def at(self, step: int) -> AbstractUnroll:
        """The unroll of meta-step `step` = 0, 1, ...

        It must depend only on `step`, so that a run can continue from any step, and must
        always have the same shapes and dtypes, so that it is compiled once.
        """


class Steady(AbstractFeed):
    """The same unroll always."""

    unroll: AbstractUnroll

    def at(self, step: int) -> AbstractUnroll:
        return self.unroll


def as_feed(unroll: Any) -> AbstractFeed:
    """`unroll` itself if it is a feed, else the same unroll always.

    **Raises:**

    `ValueError` if it is neither an unroll nor a feed.
    """
    if isinstance(unroll, AbstractFeed):
        return unroll
    check_is_unroll(unroll)
    return Steady(unroll)
