"""What back-propagation keeps of the steps it has made, and what it makes again."""

import abc
import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, PyTree


Body = Callable[[PyTree[Array], PyTree[Array]], tuple[PyTree[Array], PyTree[Array]]]


class AbstractRematerialisation(eqx.Module):
    """How a scan trades memory for time when it is differentiated in reverse."""

    @abc.abstractmethod
    def scan(
        self, body: Body, carry: PyTree[Array], xs: PyTree[Array]
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        """`lax.scan(body, carry, xs)`."""


class NoRematerialisation(AbstractRematerialisation):
    """Keeps the intermediates of every step: memory of K steps, and the least time."""

    def scan(
        self, body: Body, carry: PyTree[Array], xs: PyTree[Array]
    ) -> tuple[PyTree[Array], PyTree[Array]]:
        return lax.scan(body, carry, xs)


class Segments(AbstractRematerialisation):
    """Keeps the carry at the start of each segment, and makes a segment's steps again.

    With K steps in segments of $s$, memory holds $K / s + s$ carries and the
    intermediates of one step; every step is computed three times in all. The least
    memory, of $2 \\sqrt K$ carries, is had at $s = \\sqrt K$; the default is a divisor of
    K near it where there is one.

    ??? cite "Reference"

        ```bibtex
        @article{chen2016training,
            title={Training Deep Nets with Sublinear Memory Cost},
            author={Chen, Tianqi and Xu, Bing and Zhang, Chiyuan and Guestrin, Carlos},
            year={2016},
            eprint={1604.06174},
        }
        ```
    """

    length: int | None = eqx.field(default=None, static=True)

    def __check_init__(self):
        if self.length is not None and self.length < 1:
            raise ValueError(f"A segment has at least 1 step; got {self.length}.")

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

        step, inputs = body, xs
        if padding:
            step, inputs = padded, (jnp.arange(steps + padding) < steps, xs)
            inputs = inputs[0].reshape(segments, length), jtu.tree_map(fill, xs)
        else:
            inputs = jtu.tree_map(fill, xs)
        once = jax.checkpoint(step, prevent_cse=False)
        segment = jax.checkpoint(lambda c, x: lax.scan(once, c, x), prevent_cse=False)
        carry, ys = lax.scan(segment, carry, inputs)
        flatten = lambda y: y.reshape(segments * length, *y.shape[2:])[:steps]
        return carry, jtu.tree_map(flatten, ys)


# Segments that do not divide the steps are filled up: up to a third more time.
def _near_root(steps: int) -> int:
    root = math.isqrt(steps - 1) + 1
    return next((s for s in range(root, 2 * root) if steps % s == 0), root)
