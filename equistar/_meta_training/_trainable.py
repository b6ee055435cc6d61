"""Which part of a pytree is meta-trained."""

from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax.tree_util as jtu
from jaxtyping import PyTree

from .._kinds import described


_Theta = TypeVar("_Theta")


def all_but(theta: _Theta, part: Callable[[_Theta], Any]) -> PyTree[bool]:
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

    **Raises:**

    `ValueError` if `theta` has no such part, or if nothing is left to train.
    """
    return _with_part(theta, part, everything=eqx.is_inexact_array, of_part=_never)


def only(theta: _Theta, part: Callable[[_Theta], Any]) -> PyTree[bool]:
    """Only a part is meta-trained, for `meta_train(..., trainable=...)`; the rest is held.

    **Arguments:** as for [`equistar.all_but`][].

    **Returns:**

    A pytree in the structure of `theta`: whether each leaf is trained.

    **Raises:** likewise.
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
    try:
        found = part(theta)
    except (AttributeError, KeyError, IndexError) as e:
        names = ", ".join(str(k) for k in vars(theta)) if hasattr(theta, "__dict__") else ""
        raise ValueError(
            f"`part` finds nothing in {type(theta).__name__} ({e})"
            + (f": it has {names}." if names else ".")
        ) from e
    spec = eqx.tree_at(part, spec, jtu.tree_map(of_part, found))
    if not any(jtu.tree_leaves(spec)):
        raise ValueError("Nothing is left to train: choose another `part`.")
    return spec


def check_trainable(trainable: PyTree, theta: PyTree) -> None:
    """Raises a `ValueError` unless this filter leaves inexact arrays, and no others."""
    try:
        trained = eqx.filter(theta, trainable)
    except (TypeError, ValueError) as e:
        raise ValueError(
            "`trainable` must be a function of a leaf, or True and False in the structure "
            "of `theta`, as `all_but(theta, ...)` and `only(theta, ...)` make them."
        ) from e
    if not jtu.tree_leaves(trained):
        raise ValueError(
            "Nothing of `theta` is trainable: it has no inexact array that is."
        )
    for path, x in jtu.tree_leaves_with_path(trained):
        if not eqx.is_inexact_array(x):
            raise ValueError(
                "Only inexact arrays can be trained, and `trainable` is true also of theta"
                f"{jtu.keystr(path)}, which is {described(x)}: leave it out, as "
                "`trainable=eqx.is_inexact_array` does."
            )
