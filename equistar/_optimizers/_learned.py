"""The one update rule of every learned optimizer."""

import dataclasses
import functools as ft
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jaxtyping import Array, Float, Int, PyTree

from .._components import (
    AbstractAccumulator,
    AbstractBlackboxTerm,
    AbstractFeatures,
    AbstractGain,
    AbstractNetwork,
    AbstractNominalTerm,
    AbstractWeightDecay,
    accumulate,
    check_parts,
    check_shapes,
    given,
    given_hidden,
    means_for,
    seen_before,
    start_accumulators,
    Tensor,
)
from .._lowering import together
from .._numerics import accumulator_dtype
from ._base import AbstractOptimizer
from ._groups import as_one, groups, is_spread, several, Update
from ._trees import (
    check_grads,
    check_params,
    check_state,
    check_tensor_state,
    cut_alike,
    gather,
    scatter,
)


_READERS = "features", "blackbox", "nominal", "weight_decay", "gain"


class LearnedOptimizerState(eqx.Module):
    """State of a learned optimizer.

    **Attributes:**

    - `accumulators`: by name, for each decay, a tree in the structure of the parameters.
    - `count`: the number of updates made.
    """

    accumulators: dict[str, tuple[Any, ...]]
    count: Int[Array, ""]


class AbstractLearnedOptimizer(AbstractOptimizer):
    """A learned optimizer, assembled from parts. Every tensor is handled alone:

    $$p \\leftarrow p - G\\,(\\beta_3\\,d\\,e^{\\beta_4 a_b} R
    + \\beta_1\\,e^{\\beta_2 a_n}\\,nominal) - \\lambda\\,e^{\\beta_5 a_r}\\,p$$

    One small network computes the direction $d$ and the log-magnitudes $a$ for each element
    of the tensor. The gain $G$ belongs to the whole tensor, and is 1 in the paper. See
    [`equistar.STAR`][] for the source.
    """

    accumulators: eqx.AbstractVar[dict[str, AbstractAccumulator]]
    features: eqx.AbstractVar[AbstractFeatures]
    network: eqx.AbstractVar[AbstractNetwork]
    blackbox: eqx.AbstractVar[AbstractBlackboxTerm]
    nominal: eqx.AbstractVar[AbstractNominalTerm]
    weight_decay: eqx.AbstractVar[AbstractWeightDecay]
    gain: eqx.AbstractVar[AbstractGain]

    def __check_init__(self) -> None:
        check_parts(self)

    @property
    def _readers(self) -> list[Any]:
        """The parts that read accumulators, and ask for means."""
        return [getattr(self, name) for name in _READERS]

    def sample(self, x: Float[Array, "*shape"]) -> Float[Array, "*sampled"]:
        """Those elements of an array of a tensor that means are taken over: here all."""
        return x

    def init(self, params: PyTree) -> LearnedOptimizerState:
        return init_tree(self, [0] * len(jtu.tree_leaves(params)), params)

    def update(
        self,
        grads: PyTree,
        state: LearnedOptimizerState,
        params: PyTree,
        **extra: Any,
    ) -> tuple[PyTree, LearnedOptimizerState]:
        del extra
        stacked = [0] * len(jtu.tree_leaves(params))
        return update_tree(self, stacked, grads, state, params)

    def init_tensor(self, param: Float[Array, "*shape"]) -> dict[str, tuple[Any, ...]]:
        """The zero accumulators of one parameter tensor, by name."""
        return start_accumulators(self.accumulators, param)

    def accumulate_tensor(
        self,
        grad: Float[Array, "*shape"],
        param: Float[Array, "*shape"],
        accumulators: dict[str, tuple[Any, ...]],
        count: Int[Array, ""],
    ) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
        """One tensor's new accumulators, and what these say of the whole tensor."""
        if param.size == 0:
            return accumulators, {}
        dtype = accumulator_dtype(param.dtype)
        bank, p, g = _cast((self.accumulators, param, grad), dtype)
        old = Tensor(p, g, _cast(accumulators, dtype), count)
        before = seen_before(bank, old, self.sample)
        new = accumulate(bank, accumulators, before)
        seen = _cast(new, dtype)
        says = {name: bank[name].summarise(seen[name], before[name]) for name in bank}
        return new, jtu.tree_map(jnp.asarray, says)

    def step_tensor(
        self,
        grad: Float[Array, "*shape"],
        param: Float[Array, "*shape"],
        accumulators: dict[str, tuple[Any, ...]],
        summaries: dict[str, Any],
        count: Int[Array, ""],
    ) -> Float[Array, "*shape"]:
        """One tensor's update, to be added, from what `accumulate_tensor` gives."""
        if param.size == 0:
            return jnp.zeros_like(param)
        dtype = accumulator_dtype(param.dtype)
        optimizer, p, g, seen = _cast((self, param, grad, accumulators), dtype)
        step = optimizer._step(Tensor(p, g, seen, count, summaries))
        return -jnp.broadcast_to(step, param.shape).astype(param.dtype)

    # Two passes over memory. The first takes all means that parts ask for and that the
    # network normalises its inputs by; the second computes the inputs again and applies
    # the network. Without the barrier XLA shares the inputs between the two by writing ten
    # of them to memory, at twice the time. What is of rows and columns alone they do share.
    def _step(self, tensor: Tensor) -> Float[Array, "..."]:
        shape = tensor.param.shape
        found = means_for(self._readers, tensor, self.sample)
        means = dict(zip(_READERS, found, strict=True))
        seen_by = lambda part, tensor: dataclasses.replace(tensor, means=means[part])
        first = seen_by("features", tensor)
        inputs = check_shapes(self.features(first), shape, self.features)
        scales = self.network.normalise(inputs)
        is_large = lambda x: x.shape == shape
        large, small = eqx.partition(tensor, is_large)
        tensor = eqx.combine(lax.optimization_barrier(large), small)
        features = self.features(seen_by("features", tensor))
        hidden = given_hidden(self.network, shape, features, scales)
        of = lambda kind, name, *more: given(
            kind, getattr(self, name), shape, seen_by(name, tensor), *more
        )
        learned = of("term", "blackbox", hidden) + of("term", "nominal", hidden)
        decay = of("term", "weight_decay", hidden)
        return of("gain", "gain") * learned + decay


def init_tree(
    optimizer: AbstractLearnedOptimizer, stacked: Sequence[int], params: PyTree
) -> LearnedOptimizerState:
    """The state for a tree, of whose i-th leaf `stacked[i]` leading axes are stacked."""
    check_params(params)
    leaves, inner = jtu.tree_flatten(params)
    init = lambda n, p: cut_alike(_over_axes(optimizer.init_tensor, n, 0)(p), p, n)
    states = [init(n, p) for n, p in zip(stacked, leaves, strict=True)]
    return LearnedOptimizerState(
        gather(states, _tensor_structure(optimizer), inner), jnp.zeros((), jnp.int32)
    )


def update_tree(
    optimizer: AbstractLearnedOptimizer,
    stacked: Sequence[int],
    grads: PyTree,
    state: LearnedOptimizerState,
    params: PyTree,
) -> tuple[PyTree, LearnedOptimizerState]:
    """One step on a tree, of whose i-th leaf `stacked[i]` leading axes are stacked."""
    check_grads(grads, params)
    check_state(state, LearnedOptimizerState)
    leaves, inner = jtu.tree_flatten(params)
    outer = _tensor_structure(optimizer)
    states = scatter(state.accumulators, outer, inner)
    tensors = list(zip(stacked, jtu.tree_leaves(grads), leaves, states, strict=True))
    results: dict[int, Any] = {}
    for group in groups(tensors):
        group_results = _update_group(optimizer, [tensors[i] for i in group], state.count)
        results |= zip(group, group_results, strict=True)
    in_order = [results[i] for i in range(len(leaves))]
    updates = inner.unflatten([update for update, _ in in_order])
    accumulators = gather([new for _, new in in_order], outer, inner)
    count = jnp.asarray(optax.safe_increment(state.count))
    return updates, LearnedOptimizerState(accumulators, count)


# The updates and the new accumulators.
def _update_group(
    optimizer: AbstractLearnedOptimizer, tensors: list[Update], count: Int[Array, ""]
) -> list[tuple[Array, dict[str, tuple[Any, ...]]]]:
    made = [_accumulate_tensor(optimizer, *tensor, count) for tensor in tensors]
    accumulators, summaries = map(list, zip(*made, strict=True))
    (stacked, _, first, _), *others = tensors
    if others and is_spread(first):
        summaries = together(summaries)
    steps = [
        (grad, param, new, summary)
        for (_, grad, param, _), new, summary in zip(
            tensors, accumulators, summaries, strict=True
        )
    ]
    if several(tensors) and not is_spread(first):
        updates = _step_as_one(optimizer, stacked, steps, count)
    else:
        updates = [
            _step_tensor(optimizer, n, *step, count)
            for (n, *_), step in zip(tensors, steps, strict=True)
        ]
    return list(zip(updates, accumulators, strict=True))


# These are compiled for themselves where nothing around them is; inside of another
# program tensors of one shape are at least traced once only.
@eqx.filter_jit
def _accumulate_tensor(
    optimizer: AbstractLearnedOptimizer,
    n: int,
    grad: Array,
    param: Array,
    accumulators: dict[str, tuple[Any, ...]],
    count: Int[Array, ""],
) -> tuple[dict[str, tuple[Any, ...]], dict[str, Any]]:
    # Here it costs a compiled update nothing, and an eager one only its first call.
    expected = jax.eval_shape(_over_axes(optimizer.init_tensor, n, 0), param)
    check_tensor_state(accumulators, expected, param.shape)
    accumulate = _over_axes(optimizer.accumulate_tensor, n, (0, 0, 0, None))
    return accumulate(grad, param, accumulators, count)


@eqx.filter_jit
def _step_tensor(
    optimizer: AbstractLearnedOptimizer,
    n: int,
    grad: Array,
    param: Array,
    accumulators: dict[str, tuple[Any, ...]],
    summaries: dict[str, Any],
    count: Int[Array, ""],
) -> Array:
    step = _over_axes(optimizer.step_tensor, n, (0, 0, 0, 0, None))
    return step(grad, param, accumulators, summaries, count)


@eqx.filter_jit
def _step_as_one(
    optimizer: AbstractLearnedOptimizer,
    n: int,
    tensors: list[tuple[Any, ...]],
    count: Int[Array, ""],
) -> list[Array]:
    return as_one(ft.partial(_step_tensor, optimizer, n + 1), tensors, count)


def _over_axes(fn: Callable, n: int, in_axes: Any) -> Callable:
    for _ in range(n):
        fn = jax.vmap(fn, in_axes=in_axes)
    return fn


# One tensor's accumulators have the same structure whatever the tensor's shape.
def _tensor_structure(optimizer: AbstractLearnedOptimizer) -> Any:
    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    return jtu.tree_structure(jax.eval_shape(optimizer.init_tensor, scalar))


def _cast(tree: Any, dtype: jnp.dtype) -> Any:
    return jtu.tree_map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, tree)
