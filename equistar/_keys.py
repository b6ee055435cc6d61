"""Keys for what is drawn beside what a key, or those it is split into, draws."""

import jax.random as jr
from jaxtyping import PRNGKeyArray


def apart(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """A key of its own for `name`, four letters, whatever else is drawn with `key`.

    A small number in place of the letters would not do: `fold_in(key, 1)` is
    `split(key)[1]`.
    """
    return jr.fold_in(key, int.from_bytes(name.encode("ascii"), "big"))
