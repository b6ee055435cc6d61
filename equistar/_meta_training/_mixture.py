"""Meta-training on many unrolls at once."""

import abc
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._kinds import as_number, check_kind, described
from .._numerics import tree_norm
from .._unrolls import AbstractUnroll
from ._feed import AbstractFeed, as_feed


class AbstractCombination(eqx.Module):
    """Combines the meta-gradients of several unrolls into one."""

    @abc.abstractmethod
    def init(self, unrolls: int) -> PyTree[Array]:
        """The state before the first meta-step."""

    @abc.abstractmethod
    def __call__(
        self,
        gradients: Sequence[PyTree],
        weights: Float[Array, " unrolls"],
        state: PyTree[Array],
    ) -> tuple[PyTree, PyTree[Array]]:
        """`(gradient, state)`.

        **Arguments:**

        - `gradients`: of each unroll, all finite.
        - `weights`: of the unrolls, with sum one; zero if the gradient is not known.
        - `state`: from the meta-step before.
        """


class WeightedMean(AbstractCombination):
    """The weighted mean of the gradients, $\\sum_i w_i g_i$."""

    def init(self, unrolls: int) -> None:
        return None

    def __call__(
        self, gradients: Sequence[PyTree], weights: Float[Array, " unrolls"], state: None
    ) -> tuple[PyTree, None]:
        return _weighted_sum(gradients, weights), None


class NormalisedMean(AbstractCombination):
    """The weighted mean of gradients, each divided by its running size. Ours.

    $$g = \\sum_i w_i\\,g_i / \\sqrt{s_i}, \\qquad
    s_i \\leftarrow d\\,s_i + (1 - d)\\,\\|g_i\\|^2$$

    with the bias of the start at $s_i = 0$ corrected as in Adam. A task whose losses, or
    meta-gradients, are a hundred times as large as another's has no more weight.

    **Attributes:**

    - `decay`: $d$, in [0, 1).

    **Raises:**

    `ValueError` if `decay` is not one number in [0, 1).
    """

    decay: float = eqx.field(
        default=0.99, static=True, converter=lambda x: as_number(x, "`decay`", "0.99")
    )

    def __check_init__(self):
        if not 0 <= self.decay < 1:
            raise ValueError(f"`decay` must be in [0, 1); got {self.decay}.")

    def init(self, unrolls: int) -> "_NormalisedMeanState":
        return _NormalisedMeanState(jnp.zeros(unrolls), jnp.zeros(unrolls))

    def __call__(
        self,
        gradients: Sequence[PyTree],
        weights: Float[Array, " unrolls"],
        state: "_NormalisedMeanState",
    ) -> tuple[PyTree, "_NormalisedMeanState"]:
        dtype, known = state.root.dtype, weights > 0
        now = jnp.stack([tree_norm(g, dtype) for g in gradients])
        # Room for rounding, and for a reciprocal that is still a normal number.
        now = jnp.minimum(now, jnp.finfo(dtype).max / 8)
        root = jnp.where(known, self._averaged(state.root, now), state.root)
        # What the average of ones would be: dividing by it corrects the bias.
        mass = self.decay * state.mass + (1 - self.decay)
        mass = jnp.where(known, mass, state.mass)
        size = root / jnp.sqrt(jnp.where(mass > 0, mass, 1))
        scaled = [_in_units(g, s) for g, s in zip(gradients, size, strict=True)]
        return _weighted_sum(scaled, weights), _NormalisedMeanState(root, mass)

    def _averaged(
        self, root: Float[Array, " unrolls"], now: Float[Array, " unrolls"]
    ) -> Float[Array, " unrolls"]:
        """The root of the average of squares, which themselves may overflow or vanish."""
        largest = jnp.maximum(root, now)
        largest = jnp.where(largest > 0, largest, 1)
        old, new = (root / largest) ** 2, (now / largest) ** 2
        return largest * jnp.sqrt(self.decay * old + (1 - self.decay) * new)


class _NormalisedMeanState(eqx.Module):
    """$\\sqrt{s_i}$, which a gradient's norm bounds, and what corrects its bias."""

    root: Float[Array, " unrolls"]
    mass: Float[Array, " unrolls"]


def _in_units(gradient: PyTree, size: Float[Array, ""]) -> PyTree:
    """The gradient over its size; zero where that is zero."""
    unit = jnp.where(size > 0, size, 1)
    over = lambda x: (x.astype(size.dtype) / unit).astype(x.dtype)
    return jtu.tree_map(lambda x: jnp.where(size > 0, over(x), 0), gradient)


class Mixture(eqx.Module):
    """Several unrolls that one theta is meta-trained on.

    In every meta-step, each unroll runs a window with its own particles, in its own
    program, which is compiled once; then the gradients are combined. An unroll whose
    gradient is not finite is left out of that step. A mixture of one unroll gives bitwise
    the same results as that unroll.

    !!! Example

        ```python
        tasks = [eqs.tasks.digits_mlp(), eqs.tasks.named("wine_mlp")]
        mixture = eqs.Mixture([eqs.InnerTraining(task) for task in tasks])
        result = eqs.meta_train(mixture, eqs.PES(), star, steps=1000, key=key)
        ```

    To draw the tasks from a family: `[family.sample(key=k) for k in jr.split(key, 8)]`.
    """

    feeds: tuple[AbstractFeed, ...]
    weights: tuple[float, ...] = eqx.field(static=True)
    combination: AbstractCombination

    def __init__(
        self,
        unrolls: Sequence[AbstractUnroll | AbstractFeed],
        weights: Sequence[float | int] = (),
        combination: AbstractCombination = WeightedMean(),
    ):
        """**Arguments:**

        - `unrolls`: at least one; of any kinds.
        - `weights`: positive, one for each; scaled to sum one. By default all are equal.
        - `combination`: `WeightedMean()`, or [`equistar.NormalisedMean`][] for unrolls
            whose losses are of different sizes.

        **Raises:**

        `ValueError` if an argument is not of its kind, there is no unroll, there are not as
        many weights as unrolls, or a weight is not positive and finite.
        """
        wanted = "a list of unrolls, say `[InnerTraining(task)]`"
        check_kind(unrolls, Iterable, "`unrolls`", wanted)
        check_kind(combination, AbstractCombination, "`combination`")
        if isinstance(unrolls, Mapping):
            raise ValueError(
                "`unrolls` must be a list and not a dictionary: pass "
                "`list(unrolls.values())`."
            )
        check_kind(weights, Iterable, "`weights`", "a list of numbers, say `[1.0, 2.0]`")
        unrolls, weights = tuple(unrolls), tuple(weights)
        if np.asarray(weights).dtype.kind not in "iuf":
            raise ValueError(f"`weights` must be numbers, say `[1.0, 2.0]`; got {weights}.")
        weights = weights or (1.0,) * len(unrolls)
        if not unrolls:
            raise ValueError("A mixture needs at least one unroll.")
        if len(weights) != len(unrolls):
            raise ValueError(
                f"A mixture needs one weight for each unroll; got {len(weights)} weights "
                f"for {len(unrolls)} unrolls."
            )
        if not all(0 < w < math.inf for w in weights):
            raise ValueError(f"Weights must be positive and finite; got {weights}.")
        self.feeds = tuple(as_feed(unroll) for unroll in unrolls)
        total = math.fsum(weights)
        self.weights = tuple(float(w) / total for w in weights)
        self.combination = combination

    def at(self, step: int) -> tuple[AbstractUnroll, ...]:
        """The unrolls of meta-step `step` = 0, 1, ..."""
        return tuple(feed.at(step) for feed in self.feeds)


def as_mixture(unroll: Any) -> Mixture:
    """`unroll` itself if it is a mixture, else the mixture of it alone."""
    return unroll if isinstance(unroll, Mixture) else Mixture([unroll])


def check_combination(mixture: Mixture, theta: PyTree) -> None:
    """Raises a `ValueError` for a combination that no meta-step can go on with.

    Only shapes are looked at. `theta` is what is trained of the meta-parameters.
    """
    combination, unrolls = mixture.combination, len(mixture.feeds)
    # Those that are known need no look, which would be traced anew for every run.
    if isinstance(combination, WeightedMean | NormalisedMean):
        return
    name = type(combination).__name__
    state = eqx.filter_eval_shape(combination.init, unrolls)
    for x in jtu.tree_leaves(state):
        if not hasattr(x, "dtype"):
            raise ValueError(
                f"{name}.init must return a state of arrays; got {x!r:.80}. Use "
                "jnp.asarray for its numbers."
            )
    gradient = eqx.filter(theta, eqx.is_inexact_array)
    weights = jnp.asarray(mixture.weights)
    made = eqx.filter_eval_shape(combination, [gradient] * unrolls, weights, state)
    if not (isinstance(made, tuple) and len(made) == 2):
        raise ValueError(
            f"{name} must return a pair, (gradient, state); got {described(made)}."
        )
    _check_alike(made[0], gradient, f"{name} must return a gradient like those it combines")
    _check_alike(made[1], state, f"{name} must return a state like that of init")


def _check_alike(found: PyTree, wanted: PyTree, what: str) -> None:
    structures = [jtu.tree_structure(tree) for tree in (found, wanted)]
    if structures[0] != structures[1]:
        raise ValueError(f"{what}: got {structures[0]!s:.200} for {structures[1]!s:.200}.")
    kind = lambda x: f"{x.dtype} of shape {x.shape}" if hasattr(x, "dtype") else repr(x)
    for x, like in zip(jtu.tree_leaves(found), jtu.tree_leaves(wanted), strict=True):
        if kind(x) != kind(like):
            raise ValueError(f"{what}: got {kind(x)} for {kind(like)}.")


def unroll_keys(key: PRNGKeyArray, unrolls: int) -> tuple[PRNGKeyArray, ...]:
    """A key for each unroll; the key itself if there is only one."""
    return (key,) if unrolls == 1 else tuple(jr.split(key, unrolls))


def _weighted_sum(trees: Sequence[PyTree], weights: Float[Array, " n"]) -> Any:
    def scaled(tree: PyTree, weight: Array) -> PyTree:
        return jtu.tree_map(lambda x: weight.astype(x.dtype) * x, tree)

    terms = [scaled(tree, w) for tree, w in zip(trees, weights, strict=True)]
    return jtu.tree_map(lambda *xs: sum(xs[1:], xs[0]), *terms)
