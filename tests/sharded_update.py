"""Run by test_sharding.py in a process with four devices; prints what it found."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

import equistar as eqs


mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(AxisType.Auto, AxisType.Auto))
specs = {"w": P("x", "y"), "t": P(None, "y", "x"), "b": P("y"), "s": P()}
shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
shapes = {"w": (8, 4), "t": (3, 2, 4), "b": (4,), "s": ()}
keys = jr.split(jr.key(0), len(shapes))
params = {n: jr.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}
sharded = jax.device_put(params, shardings)

star = eqs.STAR(key=jr.key(1), direction_init=eqs.release_init)
optim = eqs.as_optax(star, learning_rate=2.0, weight_decay=0.1)
update = jax.jit(optim.update)


def run(params) -> Any:
    state = optim.init(params)
    for _ in range(3):
        updates, state = update(jtu.tree_map(jnp.sin, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


expected, _ = run(params)
result, state = run(sharded)
for name in params:
    np.testing.assert_allclose(result[name], expected[name], rtol=1e-5, atol=1e-7)
    assert result[name].sharding.is_equivalent_to(shardings[name], params[name].ndim)
    momentum = state.inner.accumulators["momentum"][0][name]
    assert momentum.sharding.is_equivalent_to(shardings[name], params[name].ndim)
fresh = eqs.Scaled(star).init(sharded).inner.accumulators["factored"][0]
# The largest axis of t (3, 2, 4) is the last and the second largest the first.
assert fresh.row["t"].sharding == NamedSharding(mesh, P(None, "y"))
assert fresh.column["t"].sharding == NamedSharding(mesh, P("y", "x"))

# All sums across devices cross at once for the whole tree, however many tensors it has.
# Fully sharded, the means of squared gradients are one all-reduce, and the mean squares of
# all inputs the other. With tensors cut along both axes of a mesh, sums of a tensor's rows
# cross one of the two, those of its columns the other and its mean squares both. An
# AdaptiveSTAR has sums more, which the rest waits for. Nothing is gathered: of a
# multi-operand sum XLA would gather each of the 16 parts.
shapes = {"w": (8, 4), "t": (3, 2, 4), "b": (4,), "s": ()}
keys = jr.split(jr.key(0), len(shapes))
params = {n: jr.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}
sharded = jax.device_put(params, shardings)

star = eqs.STAR(key=jr.key(1), direction_init=eqs.release_init)
optim = eqs.as_optax(star, learning_rate=2.0, weight_decay=0.1)
update = jax.jit(optim.update)


def run(params) -> Any:
    state = optim.init(params)
    for _ in range(3):
        updates, state = update(jtu.tree_map(jnp.sin, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


expected, _ = run(params)
result, state = run(sharded)
for name in params:
    np.testing.assert_allclose(result[name], expected[name], rtol=1e-5, atol=1e-7)
    assert result[name].sharding.is_equivalent_to(shardings[name], params[name].ndim)
    momentum = state.inner.accumulators["momentum"][0][name]
    assert momentum.sharding.is_equivalent_to(shardings[name], params[name].ndim)
fresh = eqs.Scaled(star).init(sharded).inner.accumulators["factored"][0]
# The largest axis of t (3, 2, 4) is the last and the second largest the first.
assert fresh.row["t"].sharding == NamedSharding(mesh, P(None, "y"))
assert fresh.column["t"].sharding == NamedSharding(mesh, P("y", "x"))

# All sums across devices cross at once for the whole tree, however many tensors it has.
# Fully sharded, the means of squared gradients are one all-reduce, and the mean squares of
# all inputs the other. With tensors cut along both axes of a mesh, sums of a tensor's rows
# cross one of the two, those of its columns the other and its mean squares both; an
# AdaptiveSTAR has one sum more, which the rest waits for. Nothing is gathered: of a
# multi-operand sum XLA would gather each of the 16 parts.
shapes = {"a": (256, 128), "b": (64, 32), "c": (128, 256), "d": (32,)}
line = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
cuts = {
    "fully sharded": (line, {n: P("x") for n in shapes}),
    "both axes": (
        mesh,
        {"a": P("x", "y"), "b": P("y", "x"), "c": P("x", "y"), "d": P("x")},
    ),
}


def count_collectives(optimizer, cut, copies, order):
    mesh, specs = cuts[cut]
    tree = {n: [jnp.ones(s)] * copies for n, s in shapes.items()}
    where = {n: [NamedSharding(mesh, specs[n])] * copies for n in shapes}
    large = jax.device_put(tree, where)
    step = jax.jit(lambda g, s, p: optimizer.update(g, s, p)[::order])
    compiled = step.lower(large, optimizer.init(large), large).compile().as_text()
    kinds = re.findall(r"= .* (all-\w+|reduce-scatter|collective-\w+)\(", str(compiled))
    assert set(kinds) == {"all-reduce"}, kinds
    return len(kinds)


adaptive = eqs.AdaptiveSTAR(key=jr.key(1))
counts = {}
for optimizer, cut, most in (
    (star, "fully sharded", 2),
    (star, "both axes", 6),
    (adaptive, "fully sharded", 3),
    (adaptive, "both axes", 8),
):
    count = lambda copies, order, o=optimizer, cut=cut: count_collectives(
        o, cut, copies, order
    )
    found = counts[type(optimizer).__name__, cut] = count(1, 1), count(3, 1), count(1, -1)
    assert max(found) <= most, counts
print("sharded as its parameters, equal to unsharded; collectives:", counts)
