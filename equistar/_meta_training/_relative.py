"""Losses in units of a reference's."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._kinds import as_number, check_kind
from .._unrolls import AbstractUnroll, check_is_unroll
from ._feed import AbstractFeed


def _as_reference(value: Any) -> float:
    reference = as_number(value, "`reference`", "0.5")
    if not 0 < reference < math.inf:
        raise ValueError(f"`reference` must be positive and finite; got {reference}.")
    return reference


# Equal unrolls share a program whatever their references, as these are arguments of it.
def _as_array(value: Any) -> Float[Array, ""]:
    return jnp.array(_as_reference(value), jnp.zeros(()).dtype)


class Relative(AbstractUnroll):
    """An unroll whose losses are divided by a reference's, $l_t / \\bar l$.

    If the reference is the mean loss of a well-tuned optimizer, the losses of all tasks in
    a [`equistar.Mixture`][] have the same unit, and 1 is that optimizer's loss.

    **Arguments:**

    - `unroll`: the unroll with the losses $l_t$.
    - `reference`: $\\bar l$, positive and finite.

    **Raises:**

    `ValueError` if `unroll` is not an unroll, or `reference` not positive and finite.
    """

    unroll: AbstractUnroll
    reference: Float[Array, ""] = eqx.field(converter=_as_array)

    def __check_init__(self):
        check_is_unroll(self.unroll)

    def init(self, theta: PyTree, *, key: PRNGKeyArray) -> PyTree[Array]:
        return self.unroll.init(theta, key=key)

    def step(
        self, theta: PyTree, carry: PyTree[Array], *, key: PRNGKeyArray
    ) -> tuple[PyTree[Array], Float[Array, ""]]:
        carry, loss = self.unroll.step(theta, carry, key=key)
        # Losses may be whole numbers, say of errors, of which evolution strategies learn.
        inexact = jnp.issubdtype(loss.dtype, jnp.inexact)
        dtype = loss.dtype if inexact else self.reference.dtype
        return carry, loss.astype(dtype) / self.reference.astype(dtype)


class RelativeFeed(AbstractFeed):
    """[`equistar.Relative`][] for unrolls whose data change.

    **Arguments:**

    - `feed`: of the unrolls.
    - `reference`: $\\bar l$, positive and finite, one for all of them.

    **Raises:**

    `ValueError` if `feed` is not a feed, or `reference` not positive and finite.
    """

    feed: AbstractFeed
    reference: float = eqx.field(static=True, converter=_as_reference)

    def __check_init__(self):
        check_kind(self.feed, AbstractFeed, "`feed`")

    def at(self, step: int) -> AbstractUnroll:
        return Relative(self.feed.at(step), self.reference)
