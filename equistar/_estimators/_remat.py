"""What back-propagation keeps of the steps it has made, and what it makes again."""

import abc
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, PyTree

from .._kinds import as_int, check_count


Body = Callable[[PyTree[Array], PyTree[Array]], tuple[PyTree[Array], PyTree[Array]]]


class AbstractRematerialisation(eqx.Module):
    """How a scan trades memory for time when it is differentiated in reverse."""

    @abc.abstractmethod
    def scan(
        self, body: Body, carry: PyTree[Array], xs: PyTree[Array]
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        """`lax.scan(body, carry, xs)`."""


class NoRematerialisation(AbstractRematerialisation):
    """Stores the intermediates of all K steps: the most memory, and the least time."""

    def scan(
        self, body: Body, carry: PyTree[Array], xs: PyTree[Array]
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        return lax.scan(body, carry, xs)


class EveryStep(AbstractRematerialisation):
    """Stores the carry before each step, and computes every step again.

    With K steps, memory holds K carries and the intermediates of one step; every step is
    computed twice in all. It is faster than `Segments()` if K carries fit into memory.
    """

    def scan(
        self, body: Body, carry: PyTree[Array], xs: PyTree[Array]
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        return _scan_again(body, body, carry, xs)


class Segments(AbstractRematerialisation):
    """Stores the carry at the start of each segment, and computes its steps again.

    With K steps in segments of $s$, memory holds $K / s + s$ carries and the
    intermediates of one step; every step is computed three times in all. Memory is least
    at $s = \\sqrt K$, with $2 \\sqrt K$ carries.

    **Attributes:**

    - `length`: $s$, in steps; by default a divisor of K near $\\sqrt K$ if there is one.

    **Raises:**

    `ValueError` if `length` is below 1.

    ??? cite

        ```bibtex
        @article{chen2016training,
            title={Training Deep Nets with Sublinear Memory Cost},
            author={Chen, Tianqi and Xu, Bing and Zhang, Chiyuan and Guestrin, Carlos},
            year={2016},
            eprint={1604.06174},
        }
        ```
    """

    length: int | None = eqx.field(default=None, converter=as_int, static=True)

    def __check_init__(self):
        if self.length is not None:
            check_count(self.length, "length")

    def scan(
        self, body: Body, carry: PyTree[Array], xs: PyTree[Array]
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        steps = len(jtu.tree_leaves(xs)[0])
        length = _near_root(steps) if self.length is None else min(self.length, steps)
        segments = -(-steps // length)
        padding = segments * length - steps

        # The last segment is filled up with steps that do nothing.
        def padded(carry: PyTree[Array], x: tuple[Array, PyTree[Array]]):
            real, x = x
            shapes = jax.eval_shape(body, carry, x)[1]
            nothing = lambda c, _: (
                c,
                jtu.tree_map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),
            )
            return lax.cond(real, body, nothing, carry, x)

        def fill(x: Array) -> Array:
            last = jnp.repeat(x[-1:], padding, axis=0)
            filled = jnp.concatenate([x, last]) if padding else x
            return filled.reshape(segments, length, *x.shape[1:])

        xs = jtu.tree_map(fill, xs)
        real = (jnp.arange(steps + padding) < steps).reshape(segments, length)
        step, inputs = (padded, (real, xs)) if padding else (body, xs)
        segment = lambda carry, x: lax.scan(step, carry, x)
        again = lambda carry, x: _scan_again(step, step, carry, x)
        carry, ys = _scan_again(segment, again, carry, inputs)
        flatten = lambda y: y.reshape(segments * length, *y.shape[2:])[:steps]
        return carry, jtu.tree_map(flatten, ys)


class WithinMemory(AbstractRematerialisation):
    """`EveryStep()` if the carries of all steps fit into `limit`, else `Segments()`.

    A carry is the state of an unroll; in inner training, a network's parameters and its
    optimizer's state.

    **Attributes:**

    - `limit`: bytes for the carries of all particles together; by default 64 MiB.

    **Raises:**

    `ValueError` if `limit` is not a whole number of at least 0.
    """

    limit: int = eqx.field(default=2**26, converter=as_int, static=True)

    def __check_init__(self):
        check_count(self.limit, "limit", least=0)

    def scan(
        self, body: Body, carry: PyTree[Array], xs: PyTree[Array]
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        steps = len(jtu.tree_leaves(xs)[0])
        size = sum(x.size * x.dtype.itemsize for x in jtu.tree_leaves(carry))
        remat = EveryStep() if steps * size <= self.limit else Segments()
        return remat.scan(body, carry, xs)


# Segments that do not divide the steps are filled up: up to a third more time.
def _near_root(steps: int) -> int:
    root = math.isqrt(steps - 1) + 1
    return next((s for s in range(root, 2 * root) if steps % s == 0), root)


# `lax.scan`, whose reverse mode keeps the carry before each step and makes the step again,
# by `again`: the same function, of which only this one need be differentiable.
# Only the step that is being differentiated runs the rules of `jax.custom_jvp`: under
# `jax.checkpoint` every pass does, and the update's network has a slower form in its rule.
def _scan_again(
    body: Body, again: Body, carry: PyTree[Array], xs: PyTree[Array]
) -> tuple[PyTree[Array], PyTree[Array]]:
    first = jtu.tree_map(lambda x: x[0], xs)
    once = eqx.filter_closure_convert(body, carry, first)
    again = eqx.filter_closure_convert(again, carry, first)
    return _scan((once, again, carry, xs))


@eqx.filter_custom_vjp
def _scan(arguments: Any) -> tuple[PyTree[Array], PyTree[Array]]:
    once, _, carry, xs = arguments
    # A converted closure cannot be hashed.
    return lax.scan(lambda carry, x: once(carry, x), carry, xs)


@_scan.def_fwd
def _scan_forward(perturbed: Any, arguments: Any) -> Any:
    once, _, carry, xs = arguments

    def keep(carry: PyTree[Array], x: PyTree[Array]) -> tuple[PyTree[Array], Any]:
        after, y = once(carry, x)
        return after, (carry, y)

    carry, (carries, ys) = lax.scan(keep, carry, xs)
    return (carry, ys), (carries, (carry, ys))


@_scan.def_bwd
def _scan_backward(
    kept: Any, slopes: PyTree[Array], perturbed: Any, arguments: Any
) -> PyTree[Array]:
    (once, body, _, xs), (carries, result) = arguments, kept
    # Of the body and the inputs only what is differentiated; of a carry all that can be.
    body, constants = eqx.partition(body, perturbed[1])
    xs, other_xs = eqx.partition(xs, perturbed[3])
    of_carry, of_ys = _with_zeros(slopes, result)

    def back(after: Any, step: Any) -> tuple[Any, PyTree[Array]]:
        (of_carry, of_body), (before, x, other_x, of_y) = after, step
        before, fixed = eqx.partition(before, eqx.is_inexact_array)

        def forward(body: Any, before: PyTree[Array], x: PyTree[Array]) -> PyTree[Array]:
            step = eqx.combine(body, constants)
            out = step(eqx.combine(before, fixed), eqx.combine(x, other_x))
            return eqx.filter(out, eqx.is_inexact_array)

        _, pull = jax.vjp(forward, body, before, x)
        more, of_carry, of_x = pull((of_carry, of_y))
        return (of_carry, jtu.tree_map(jnp.add, of_body, more)), of_x

    slopes = of_carry, jtu.tree_map(jnp.zeros_like, body)
    steps = carries, xs, other_xs, of_ys
    (of_carry, of_body), of_xs = lax.scan(back, slopes, steps, reverse=True)
    nothing = jtu.tree_map(lambda _: None, once)
    return nothing, of_body, of_carry, of_xs


def _with_zeros(slopes: PyTree[Array], like: PyTree[Array]) -> PyTree[Array]:
    """The slopes of all that can be differentiated: of what is not used they are None."""
    zero = lambda x, slope: jnp.zeros_like(x) if slope is None else slope
    return jtu.tree_map(zero, eqx.filter(like, eqx.is_inexact_array), slopes)
