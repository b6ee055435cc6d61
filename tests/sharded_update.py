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

# Fully sharded: XLA merges sums across devices as it meets them, so that with the updates
# returned first there is an all-reduce for each tensor and one more, and with the state
# returned first there are fewer. Nothing is gathered.
line = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
large = {
    n: jax.device_put(jnp.ones(s), NamedSharding(line, P("x")))
    for n, s in {
        "a": (256, 128),
        "b": (64, 32),
        "c": (128, 256),
        "d": (64, 64),
        "e": (32, 16),
    }.items()
}


def count_collectives(step):
    compiled = jax.jit(step).lower(large, star.init(large), large).compile().as_text()
    kinds = re.findall(r"= .* (all-\w+|reduce-scatter|collective-\w+)\(", str(compiled))
    assert set(kinds) == {"all-reduce"}, kinds
    return len(kinds)


state_first = count_collectives(lambda g, s, p: star.update(g, s, p)[::-1])
updates_first = count_collectives(lambda g, s, p: star.update(g, s, p))
assert state_first <= len(large) - 1, state_first
assert updates_first <= len(large) + 1, updates_first
print("sharded as its parameters, equal to unsharded, in", updates_first, "collectives")
