"""Some of a tensor's elements, for means that need not be of all."""

import math

import jax
import jax.lax as lax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._factors import factored_axes
from ._means import devices_of, reshape


def some_of_each_row(
    x: Float[Array, "*shape"], every: int, least: int
) -> Float[Array, "*sampled"]:
    """One in `every` elements of each row and of each column.

    Rows and columns are those of the two longest axes. Each row is cut into `every`
    stretches, of which one is taken, and of the next row the next one:

        1 1 1 . . . . . .
        . . . 1 1 1 . . .
        . . . . . . 1 1 1
        1 1 1 . . . . . .

    More are taken where fewer than `least` elements would remain or the lengths of the axes
    do not divide; of a vector, all. Of an odd number of rows or columns up to a hundredth,
    the last ones, are left out instead if need be. On explicit axes of a mesh each device
    takes those of its own share of the columns.
    """
    if x.ndim < 2:
        return x
    _, shares = devices_of(jax.typeof(x).sharding)
    row, column = sorted(factored_axes(x.shape))
    whole = lambda steps: [
        _whole(n, share, steps) if i in (row, column) else n
        for i, (n, share) in enumerate(zip(x.shape, shares, strict=True))
    ]
    most = min(every, x.size // least)
    enough = lambda d: math.prod(whole(d)) // d >= least
    steps = max((d for d in range(2, most + 1) if enough(d)), default=1)
    if steps == 1:
        return x
    x = lax.slice(x, [0] * x.ndim, whole(steps))
    return _diagonal(x, row, column, shares[column], steps)


# How many of an axis can be cut into that many stretches, of every device's share; 0 if it
# cannot. An odd length is seldom shared by devices, each of which would gather a part.
def _whole(length: int, shares: int, steps: int) -> int:
    if length // shares % steps == 0:
        return length
    over = length % steps
    return length - over if length % 2 and shares == 1 and 100 * over <= length else 0


# The rows are cut into `steps` and the columns of every share as well. These two new axes,
# side by side, are joined to one, of which a strided slice is the diagonal: unlike a
# gather, XLA fuses it with what comes before it, and computes that there only.
def _diagonal(
    x: Float[Array, "*shape"], row: int, column: int, shares: int, steps: int
) -> Float[Array, "*sampled"]:
    mesh, spec = jax.typeof(x).sharding.mesh, list(jax.typeof(x).sharding.spec)
    lengths = list(x.shape)
    width = lengths[column] // shares // steps
    cut = lambda of, rows, columns: [
        *of[:row],
        *rows,
        *of[row + 1 : column],
        *columns,
        *of[column + 1 :],
    ]
    apart = reshape(
        x,
        cut(lengths, (lengths[row] // steps, steps), (shares, steps, width)),
        cut(spec, (spec[row], None), (spec[column], None, None)),
        mesh,
    )
    beside = jnp.moveaxis(apart, column + 2, row + 2)
    joined = reshape(
        beside,
        cut(lengths, (lengths[row] // steps, steps * steps), (shares, width)),
        cut(spec, (spec[row], None), (spec[column], None)),
        mesh,
    )
    taken = lax.slice_in_dim(joined, 0, None, steps + 1, row + 1)
    return reshape(taken, cut(lengths, (lengths[row],), (shares * width,)), spec, mesh)
