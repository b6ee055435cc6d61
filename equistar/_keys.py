"""Keys for what is drawn beside what a key, or those it is split into, draws."""

from typing import Any

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, PRNGKeyArray


def apart(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """A key of its own for `name`, four letters, whatever else is drawn with `key`.

    A small number in place of the letters would not do: `fold_in(key, 1)` is
    `split(key)[1]`.
    """
    return jr.fold_in(key, int.from_bytes(name.encode("ascii"), "big"))


def key_data_of(keys: PRNGKeyArray | Array) -> list[Any]:
    """What decides the numbers that keys give, as JSON can hold it.

    Their data; where they are not of JAX's default kind, that as well.
    """
    data = np.asarray(jr.key_data(keys)).tolist()
    kind = [str(jr.key_impl(keys)), jax.config.jax_threefry_partitionable]  # pyright: ignore
    return data if kind == ["threefry2x32", True] else [*kind, data]
