"""Which part of a pytree is meta-trained."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import PyTree


def all_but(theta: PyTree, part: Callable[[Any], Any]) -> PyTree[bool]:
    """Everything is meta-trained but a part, for `meta_train(..., trainable=...)`.

    !!! Example

        ```python
        eqs.all_but(star, lambda s: (s.accumulators, s.nominal))
        ```

    **Arguments:**

    - `theta`: the meta-parameters.
    - `part`: takes `theta` to the part, or to a tuple of parts.

    **Returns:**

    A pytree in the structure of `theta`: whether each leaf is trained.
    """
    return _with_part(theta, part, everything=eqx.is_inexact_array, of_part=_never)


def only(theta: PyTree, part: Callable[[Any], Any]) -> PyTree[bool]:
    """Only a part is meta-trained, for `meta_train(..., trainable=...)`; the rest is held.

    **Arguments:** as for [`equistar.all_but`][].

    **Returns:**

    A pytree in the structure of `theta`: whether each leaf is trained.
    """
    return _with_part(theta, part, everything=_never, of_part=eqx.is_inexact_array)


def _never(leaf: Any) -> bool:
    return False


def _with_part(
    theta: PyTree,
    part: Callable[[Any], Any],
    *,
    everything: Callable[[Any], bool],
    of_part: Callable[[Any], bool],
) -> PyTree[bool]:
    spec = jtu.tree_map(everything, theta)
    return eqx.tree_at(part, spec, jtu.tree_map(of_part, part(theta)))
