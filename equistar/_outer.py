"""The outer optimizer of meta-training, and what decays in it."""

import math

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
import optax
from jaxtyping import PyTree

from ._components import AbstractScale
from ._kinds import check_kind
from ._optimizers import AbstractLearnedOptimizer


def default_outer(
    learning_rate: float | optax.Schedule = 1e-4,
    weight_decay: float = 0.1,
    clip: float = 1.0,
) -> optax.GradientTransformation:
    """The STAR paper's outer optimizer: AdamW with elementwise clipping.

    See [`equistar.STAR`][] for the source.

    **Arguments:**

    - `learning_rate`: a number or a schedule over meta-steps.
    - `weight_decay`: multiplied by the learning rate; acts on the blackbox part only,
        see [`equistar.blackbox_mask`][]. The paper uses 0, 0.1 and 0.5.
    - `clip`: meta-gradients are clipped elementwise to this size.

    **Returns:**

    An `optax.GradientTransformation`.

    **Raises:**

    `ValueError` if one of the numbers is negative or not finite, or `clip` is 0.
    """
    numbers = {"weight_decay": weight_decay, "clip": clip}
    if not callable(learning_rate):
        numbers["learning_rate"] = learning_rate
    for name, value in numbers.items():
        check_kind(value, int | float | np.number | jax.Array, f"`{name}`", "a number")
        if not 0 <= value < math.inf:
            raise ValueError(
                f"`{name}` must be a finite number of at least 0; got {value}."
            )
    if clip == 0:
        raise ValueError("`clip` must be above 0: at 0 nothing is trained.")
    return optax.chain(
        optax.clip(clip),
        optax.adamw(learning_rate, weight_decay=weight_decay, mask=blackbox_mask),
    )


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
