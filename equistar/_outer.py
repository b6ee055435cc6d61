"""The outer optimizer of meta-training, and what decays in it."""

import math

import equinox as eqx
import jax.tree_util as jtu
import optax
from jaxtyping import PyTree

from ._optimizers import AbstractLearnedOptimizer


def default_outer(
    learning_rate: float | optax.Schedule = 1e-4,
    weight_decay: float = 0.1,
    clip: float = 1.0,
) -> optax.GradientTransformation:
    """The STAR paper's outer optimizer: AdamW with elementwise clipping.

    **Arguments:**

    - `learning_rate`: a number or a schedule over meta-steps.
    - `weight_decay`: multiplied by the learning rate; acts on the blackbox part only,
        see [`equistar.blackbox_mask`][]. The paper uses 0, 0.1 and 0.5.
    - `clip`: meta-gradients are clipped elementwise to this size.
    """
    numbers = {"weight_decay": weight_decay, "clip": clip}
    if not callable(learning_rate):
        numbers["learning_rate"] = learning_rate
    for name, value in numbers.items():
        if not 0 <= value < math.inf:
            raise ValueError(
                f"`{name}` must be a finite number of at least 0; got {value}."
            )
    return optax.chain(
        optax.clip(clip),
        optax.adamw(learning_rate, weight_decay=weight_decay, mask=blackbox_mask),
    )


def blackbox_mask(theta: PyTree) -> PyTree[bool]:
    """Which meta-parameters decay in meta-training, as the STAR paper has it.

    Those of the network's trunk and of the blackbox term's heads do; the nominal and
    weight-decay heads and the accumulators' decays do not, nor does anything in a
    pytree that is no learned optimizer.
    """
    mask = jtu.tree_map(lambda _: False, theta)
    if not isinstance(theta, AbstractLearnedOptimizer):
        return mask
    part = lambda t: (t.network, t.blackbox)
    return eqx.tree_at(part, mask, jtu.tree_map(lambda _: True, part(theta)))
