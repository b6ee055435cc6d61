"""Means of many arrays of one shape, in one pass over memory."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.lax as lax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from .._lowering import alike


# Elements: of a block as a rule, at least and at most; of a stretch of memory at least; of
# a tensor so small that its stretches may be shorter.
_BLOCK = 128
_SMALLEST_BLOCK = 16
_LARGEST_BLOCK = 1024
_STRETCH = 64
_SMALL = 8192

# Devices that an axis may be spread over where the mesh is not known.
_DEVICES = 8


def means(xs: Sequence[Float[Array, "*shape"]]) -> Float[Array, " arrays"]:
    """The mean of each of several arrays of one shape.

    One pass over memory for all of them. Where the compiler sums one element after the
    other, it is a multi-operand reduction over blocks of no more than about a thousand,
    and then a second small sum: so float32 stays accurate on large tensors.
    """
    return _means(*xs) if xs else jnp.zeros(0)


# XLA for TPU writes all operands of a multi-operand reduction to memory; single sums of
# one shape it makes in one pass. Others make as many passes of those. (On many small
# tensors libtpu 0.0.42, that of jax 0.10.2, aborts with them; 0.0.52 does not.)
@jax.custom_jvp
def _means(*xs: Array) -> Float[Array, " arrays"]:
    on_tpu = _sums_in_blocks if xs[0].size <= _SMALL else _sums_apart
    total = lax.platform_dependent(*xs, tpu=on_tpu, default=_sums_in_blocks)
    return total / max(1, xs[0].size)


def _sums_apart(*xs: Array) -> Float[Array, " arrays"]:
    return jnp.stack([jnp.sum(x) for x in xs])


def _sums_in_blocks(*xs: Array) -> Float[Array, " arrays"]:
    sharding = jax.typeof(xs[0]).sharding
    axes = split(xs[0].shape, *devices_of(sharding))
    shares = [(axis.shares, axis.length) for axis in axes]
    apart = [_cut(x, shares, sharding) for x in xs]
    sums = [
        _sums(apart, parts, sharding)
        for parts in itertools.product(*(axis.parts for axis in axes))
    ]
    return sum(sums[1:], sums[0])


# JAX has no reverse-mode rule for a multi-operand reduction, and its forward-mode rule
# takes minutes to compile; but the function is linear.
@_means.defjvp
def _means_jvp(
    primals: tuple[Array, ...], tangents: tuple[Array, ...]
) -> tuple[Array, Array]:
    return _means(*primals), jnp.stack([jnp.mean(dx) for dx in tangents])


class Part(NamedTuple):
    """A range of an axis, in blocks of `block` entries each."""

    start: int
    stop: int
    block: int


class Axis(NamedTuple):
    """An axis as `shares` ranges of `length` each, and the parts of every share."""

    shares: int
    length: int
    parts: tuple[Part, ...]


def split(shape: tuple[int, ...], devices: int, known: tuple[int, ...]) -> list[Axis]:
    """How the axes of a shape are cut into the shares of devices, and these into blocks.

    XLA gathers the parts of a multi-operand reduction across devices one by one, but sums
    all arrays of the second sum, of all tensors, in one go: so no block is of two devices.

    **Arguments:**

    - `shape`: of the tensor.
    - `devices`: the number of devices that an axis may be spread over. Each has shares of
        its own if the length of the axis allows.
    - `known`: for each axis, the number of devices that it is known to be spread over,
        or 1.
    """
    axes, size = [], 1
    stretch = _STRETCH if math.prod(shape) > _SMALL else 1
    for n, there in reversed(list(zip(shape, known, strict=True))):
        possible = [d for d in _divisors(math.gcd(n, devices)) if n // d * size >= stretch]
        shares = there if there > 1 else max(possible, default=1)
        parts = _parts(n // shares, size, stretch)
        axes.append(Axis(shares, n // shares, parts))
        size *= parts[0].block
    return axes[::-1]


# A block has `size` elements on the axes within. Where no divisor of the length makes a
# good block, say since it is a prime, what is over is a part of its own.
def _parts(length: int, size: int, stretch: int) -> tuple[Part, ...]:
    least = max(stretch, _SMALLEST_BLOCK)
    good = [d for d in _divisors(length) if least <= size * d <= _LARGEST_BLOCK]
    if good:
        return (Part(0, length, min(good, key=lambda d: abs(size * d - _BLOCK))),)
    if size * length <= _LARGEST_BLOCK:
        return (Part(0, length, max(1, length)),)
    block = -(-_BLOCK // size)
    main = length - length % block
    return Part(0, main, block), Part(main, length, length - main)


def _divisors(n: int) -> list[int]:
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({d for s in small for d in (s, n // s)})


def devices_of(sharding: NamedSharding) -> tuple[int, tuple[int, ...]]:
    """The devices that an axis may be spread over, and those that each is known to be."""
    mesh = sharding.mesh
    axes = [axis if isinstance(axis, tuple) else (axis,) for axis in sharding.spec]
    count = lambda names: math.prod(mesh.shape[name] for name in names if name is not None)
    return mesh.size if mesh.size > 1 else _DEVICES, tuple(map(count, axes))


# For each array, the sum over one part of each axis of all shares.
def _sums(
    apart: list[Array], parts: tuple[Part, ...], sharding: NamedSharding
) -> Float[Array, " arrays"]:
    every = list(zip(apart[0].shape[::2], parts, strict=True))
    start = [n for _, part in every for n in (0, part.start)]
    stop = [n for shares, part in every for n in (shares, part.stop)]
    blocks = [(g, (p.stop - p.start) // p.block, p.block) for g, p in every]
    ranges = [lax.slice(x, start, stop) for x in apart]
    # A scan that is differentiated twice forgets the rule of `_means`, and JAX's own for a
    # multi-operand reduction differentiates all operands or none.
    operands = alike([_cut(x, blocks, sharding) for x in ranges])
    zeros = tuple(jnp.zeros((), x.dtype) for x in operands)
    add = lambda a, b: tuple(i + j for i, j in zip(a, b, strict=True))
    partial = lax.reduce(operands, zeros, add, tuple(range(2, 3 * len(parts), 3)))
    return jnp.sum(jnp.stack(partial), range(1, 1 + 2 * len(parts)))


# For each axis of the tensor several; the first of them is spread over its devices.
def _cut(x: Array, axes: Sequence[tuple[int, ...]], sharding: NamedSharding) -> Array:
    shape = [n for axis in axes for n in axis]
    names = [
        name
        for axis, first in zip(axes, sharding.spec, strict=True)
        for name in (first, *(None,) * (len(axis) - 1))
    ]
    return reshape(x, shape, names, sharding.mesh)


def reshape(
    x: Array, shape: Sequence[int], names: Sequence[Any], mesh: AbstractMesh | Mesh
) -> Array:
    """An array in another shape, whose axes are spread over those of the mesh."""
    spread = NamedSharding(mesh, PartitionSpec(*names))
    known = AxisType.Explicit in mesh.axis_types
    return lax.reshape(x, shape, out_sharding=spread if known else None)
