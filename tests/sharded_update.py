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

# XLA merges sums across devices as it meets them. Fully sharded, with the updates returned
# first, there is an all-reduce for each tensor and one more; with the state returned first
# there are fewer. With tensors cut along both axes of a mesh, sums of a tensor's rows cross
# one of the two, those of its columns the other and its mean squares both. Nothing is
# gathered: of a multi-operand sum XLA would gather each of the 16 parts.
shapes = {"a": (256, 128), "b": (64, 32), "c": (128, 256), "d": (64, 64), "e": (32, 16)}
line = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
fully_sharded = {n: NamedSharding(line, P("x")) for n in shapes}
columns, rows = P("x", "y"), P("y", "x")
tensor_parallel = {n: NamedSharding(mesh, rows if n in "bd" else columns) for n in shapes}


def count_collectives(shardings, step):
    ones = {n: jnp.ones(s) for n, s in shapes.items()}
    large = jax.device_put(ones, shardings)
    compiled = jax.jit(step).lower(large, star.init(large), large).compile().as_text()
    kinds = re.findall(r"= .* (all-\w+|reduce-scatter|collective-\w+)\(", str(compiled))
    assert set(kinds) == {"all-reduce"}, kinds
    return len(kinds)


counts = {}
for name, tree in ("fully sharded", fully_sharded), ("both axes", tensor_parallel):
    updates_first = count_collectives(tree, lambda g, s, p: star.update(g, s, p))
    state_first = count_collectives(tree, lambda g, s, p: star.update(g, s, p)[::-1])
    counts[name] = state_first, updates_first
assert counts["fully sharded"][0] <= len(shapes) - 1, counts
assert counts["fully sharded"][1] <= len(shapes) + 1, counts
assert counts["both axes"][0] <= 2 * len(shapes), counts
assert counts["both axes"][1] <= 3 * len(shapes), counts
print("sharded as its parameters, equal to unsharded; collectives:", counts)
