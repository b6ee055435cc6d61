"""The accumulators of an optimizer, by name: its bank."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float

from .._kinds import check_kind, instance_of, is_real
from .._lowering import after
from ._accumulators import (
    AbstractAccumulator,
    FactoredSecondMoment,
    Momentum,
    SecondMoment,
)
from ._bfloat16 import InBFloat16
from ._bias_correction import AbstractBiasCorrection, NoBiasCorrection
from ._features import AbstractFeatures
from ._gain import AbstractGain
from ._hypergradient import HypergradientDescent
from ._part import means_for
from ._tensor import Tensor
from ._terms import AbstractTerm


# Which of the library's own accumulators its parts read by these names.
_STANDARD: dict[str, type[AbstractAccumulator]] = {
    "momentum": Momentum,
    "second_moment": SecondMoment,
    "factored": FactoredSecondMoment,
    "log_step_size": HypergradientDescent,
}


def default_accumulators(
    correction: AbstractBiasCorrection = NoBiasCorrection(),
) -> dict[str, AbstractAccumulator]:
    """The accumulators of the STAR family, by the names that parts read them under.

    **Arguments:**

    - `correction`: of the first updates; the paper has none.

    **Returns:**

    [`equistar.Momentum`][] with decays 0.9, 0.99 and 0.999 as `momentum`,
    [`equistar.SecondMoment`][] with 0.999 as `second_moment`, and
    [`equistar.FactoredSecondMoment`][] with 0.9, 0.99 and 0.999 as `factored`.
    """
    return {
        "momentum": Momentum(correction=correction),
        "second_moment": SecondMoment(correction=correction),
        "factored": FactoredSecondMoment(correction=correction),
    }


def read_accumulators(
    bank: dict[str, AbstractAccumulator],
    *parts: AbstractFeatures | AbstractTerm | AbstractGain,
) -> dict[str, AbstractAccumulator]:
    """Those accumulators of `bank` that some part reads, and those that these read.

    **Raises:**

    `ValueError` if a part reads an accumulator that is not in `bank`, is a class, or is
    known by another of the names that the library's parts read.
    """
    wanted = "a dict of accumulators by name, say `default_accumulators()`"
    check_kind(bank, Mapping, "`accumulators`", wanted)
    read: set[str] = set()
    todo: list[Any] = list(parts)
    while todo:
        part = todo.pop()
        if isinstance(part, type):
            raise ValueError(
                f"{part.__name__} is a class and not an instance: pass {instance_of(part)}."
            )
        # What is no part reads nothing here: `check_parts` names it.
        for name in getattr(part, "reads", ()):
            if name not in bank:
                raise ValueError(
                    f"{type(part).__name__} reads the accumulator '{name}', but there "
                    f"are only {sorted(bank)}: pass `accumulators={{..., '{name}': ...}}`."
                )
            check_kind(bank[name], AbstractAccumulator, f"The accumulator '{name}'")
            _check_standard(name, bank[name])
            if name not in read:
                read.add(name)
                todo.append(bank[name])
    return {name: accumulator for name, accumulator in bank.items() if name in read}


# Of one's own nobody but their author knows what they hold.
def _check_standard(name: str, accumulator: AbstractAccumulator) -> None:
    while isinstance(accumulator, InBFloat16):
        accumulator = accumulator.accumulator
    found, wanted = type(accumulator), _STANDARD.get(name, type(accumulator))
    if found is not wanted and found in _STANDARD.values():
        raise ValueError(
            f"The accumulator '{name}' is a {found.__name__}, and parts read a "
            f"{wanted.__name__} by this name: pass one, or choose another name."
        )


def start_accumulators(
    bank: dict[str, AbstractAccumulator], param: Float[Array, "*shape"]
) -> dict[str, tuple[Any, ...]]:
    """The accumulators of one parameter tensor before the first update.

    **Raises:**

    `ValueError` if one is not a tuple of floating-point arrays.
    """
    states = {name: accumulator.init(param) for name, accumulator in bank.items()}
    for name, state in states.items():
        # Of a matrix that is no tuple, parts would read a row as one of its entries.
        wrong = [] if isinstance(state, tuple) else [state]
        wrong += [x for x in jtu.tree_leaves(state) if not _is_floating(x)]
        if wrong:
            raise ValueError(
                f"The accumulator '{name}' begins with {eqx.tree_pformat(wrong[0])}: its "
                "`init` must return a tuple of floating-point arrays, say `(x,)`. (The "
                "number of updates is in `tensor.count`.)"
            )
    return states


def _is_floating(x: Any) -> bool:
    return eqx.is_inexact_array(x) and not jnp.iscomplexobj(x)


def seen_before(
    bank: dict[str, AbstractAccumulator],
    before: Tensor,
    sample: Callable[[Array], Array],
) -> dict[str, Tensor]:
    """For each accumulator the tensor before, with the means that it asks for."""
    found = means_for(list(bank.values()), before, sample)
    seen = lambda means: dataclasses.replace(before, means=means)
    return dict(zip(bank, map(seen, found), strict=True))


# What reads others' old values comes first, and what it has read is updated after it.
# Nothing else says so to XLA, which without it keeps a copy of every array that is read and
# then updated in place.
def accumulate(
    bank: dict[str, AbstractAccumulator],
    accumulators: dict[str, tuple[Any, ...]],
    before: dict[str, Tensor],
) -> dict[str, tuple[Any, ...]]:
    """Those accumulators after a gradient, each from what it sees of the tensor before."""
    readers = [k for k in accumulators if bank[k].reads]
    update = lambda k, tensor: _updated(k, bank[k], accumulators[k], tensor)
    new = {k: update(k, before[k]) for k in readers}
    waits = {name for k in readers for name in bank[k].reads} - set(readers)
    for k in accumulators:
        if k in waits:
            grad = after(before[k].grad, {name: new[name] for name in readers})
            new[k] = update(k, dataclasses.replace(before[k], grad=grad))
        elif k not in new:
            new[k] = update(k, before[k])
    # As `init` gives them, and so from one update to the next.
    store = lambda x, old: x.astype(old.dtype)
    return {k: jtu.tree_map(store, new[k], old) for k, old in accumulators.items()}


def _updated(
    name: str, accumulator: AbstractAccumulator, old: tuple[Any, ...], tensor: Tensor
) -> tuple[Any, ...]:
    new = accumulator.update(old, tensor)
    real = all(hasattr(x, "dtype") and is_real(x) for x in jtu.tree_leaves(new))
    if not real or _shapes(new) != _shapes(old):
        raise ValueError(
            f"The accumulator '{name}' was {eqx.tree_pformat(old)} and after an update is "
            f"{eqx.tree_pformat(new)}: `update` must return real arrays, in a tuple and of "
            "the shapes that `init` gives."
        )
    return new


def _shapes(state: tuple[Any, ...]) -> tuple[Any, list[tuple[int, ...]]]:
    leaves, structure = jtu.tree_flatten(state)
    return structure, [jnp.shape(x) for x in leaves]
