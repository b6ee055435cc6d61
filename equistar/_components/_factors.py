"""Adafactor's factors of a second moment: one number a row, one a column."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np


class Factors(eqx.Module):
    """A factored second moment: one row and one column statistic.

    For a tensor of at least two dimensions, `row` has its shape less the largest axis
    and `column` its shape less the second largest. A scalar or a vector is not factored:
    `row` has its shape and `column` is empty.
    """

    row: Any
    column: Any


def factored_axes(shape: tuple[int, ...]) -> tuple[int, int]:
    """The second largest axis and the largest one; on a tie the later is the largest."""
    order = np.argsort(shape, kind="stable")
    return int(order[-2]), int(order[-1])


def stacked_factors(factored: tuple[Factors, ...], shape: tuple[int, ...]) -> Factors:
    """Those of all decays on a new leading axis, of a rank that broadcasts to `shape`."""
    d1, d0 = factored_axes(shape)
    rows = jnp.stack([f.row for f in factored])
    columns = jnp.stack([f.column for f in factored])
    return Factors(jnp.expand_dims(rows, 1 + d0), jnp.expand_dims(columns, 1 + d1))


def factor_means(factored: tuple[Factors, ...], shape: tuple[int, ...]) -> Factors:
    """Of `stacked_factors`, the means along the rows and along the columns."""
    d1, d0 = factored_axes(shape)
    stacked = stacked_factors(factored, shape)
    return Factors(
        jnp.mean(stacked.row, 1 + d1, keepdims=True),
        jnp.mean(stacked.column, 1 + d0, keepdims=True),
    )
