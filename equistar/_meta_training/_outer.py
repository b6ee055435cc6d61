"""The outer optimizer of meta-training, and what decays in it."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import PyTree

from .._components import AbstractScale
from .._kinds import check_function, check_kind
from .._optimizers import AbstractLearnedOptimizer


def blackbox_mask(theta: PyTree) -> PyTree[bool]:
    """Which meta-parameters decay in meta-training, as in the STAR paper.

    The weights of the network's trunk and of the blackbox term's heads decay. Learned
    scales, the nominal and weight-decay heads and the accumulators' decays do not, nor does
    anything outside of a learned optimizer. The learned optimizer may be inside another
    one, say inside [`equistar.Safeguarded`][].

    **Arguments:**

    - `theta`: the meta-parameters.

    **Returns:**

    A pytree in the structure of `theta`: whether each leaf decays.
    """
    is_learned = lambda x: isinstance(x, AbstractLearnedOptimizer)
    return jtu.tree_map(_mask, theta, is_leaf=is_learned)


def _mask(node: PyTree) -> PyTree[bool]:
    mask = jtu.tree_map(lambda _: False, node)
    if not isinstance(node, AbstractLearnedOptimizer):
        return mask
    part = lambda t: (t.network, t.blackbox)
    # A scale is stored as its logarithm: to decay that would be to draw it to 1.
    is_scale = lambda x: isinstance(x, AbstractScale)
    decays = lambda x: jtu.tree_map(lambda _: not is_scale(x), x)
    return eqx.tree_at(part, mask, jtu.tree_map(decays, part(node), is_leaf=is_scale))


def default_outer(
    learning_rate: float | optax.Schedule = 1e-4,
    weight_decay: float = 0.1,
    clip: float = 1.0,
    *,
    clip_by: Callable[[Any], optax.GradientTransformation] = optax.clip,
    mask: Callable[[PyTree], PyTree[bool]] | None = blackbox_mask,
) -> optax.GradientTransformation:
    """AdamW on clipped meta-gradients: by default the STAR paper's outer optimizer.

    See [`equistar.STAR`][] for the source.

    **Arguments:**

    - `learning_rate`: a number or a schedule over meta-steps.
    - `weight_decay`: multiplied by the learning rate. The paper uses 0, 0.1 and 0.5.
    - `clip`: the size that meta-gradients are clipped to.
    - `clip_by`: the transformation that clips them: by `optax.clip` each number is clipped
        by itself, as in the paper, by `optax.clip_by_global_norm` the norm of all.
    - `mask`: what decays, as in `optax.adamw`: by default the blackbox part only, see
        [`equistar.blackbox_mask`][], and with `None` everything, as in the paper's released
        implementation.

    **Returns:**

    An `optax.GradientTransformation`.

    **Raises:**

    `ValueError` if one of the numbers is negative or not finite, `clip` is 0, or `clip_by`
    or `mask` is no function.
    """
    if not callable(learning_rate):
        check_finite(learning_rate, "learning_rate")
    check_function(clip_by, "clip_by", "optax.clip_by_global_norm")
    if mask is not None:
        check_function(mask, "mask", "equistar.blackbox_mask")
    check_finite(weight_decay, "weight_decay")
    check_finite(clip, "clip")
    if clip == 0:
        raise ValueError("`clip` must be above 0: at 0 nothing is trained.")
    return optax.chain(
        clip_by(clip), optax.adamw(learning_rate, weight_decay=weight_decay, mask=mask)
    )


def check_finite(value: Any, name: str) -> None:
    """Raises a `ValueError` unless `value` is a finite number of at least 0."""
    check_kind(value, int | float | np.number | jax.Array, f"`{name}`", "a number")
    if not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be a finite number of at least 0; got {value}.")
