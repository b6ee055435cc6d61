"""Run by test_sharding.py in a process with four devices; prints what it found."""

import contextlib
import gc
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


# As in conftest.py: less time for the garbage collector.
gc.set_threshold(200_000, 20, 100)

KINDS = AxisType.Auto, AxisType.Explicit
meshes = {k: jax.make_mesh((2, 2), ("x", "y"), axis_types=(k, k)) for k in KINDS}
specs = {"w": P("x", "y"), "t": P(None, "y", "x"), "b": P("y"), "s": P()}
# A share of `p` is a prime: it is cut into blocks and what is over. `l` is four layers.
specs |= {"p": P("x"), "l": P("x")}
shapes = {"w": (8, 4), "t": (3, 2, 4), "b": (4,), "s": (), "p": (2 * 4099, 3)}
shapes["l"] = (4, 6, 8)
keys = jr.split(jr.key(0), len(shapes))
params = {n: jr.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}

star = eqs.STAR(key=jr.key(1), direction_init=eqs.release_init)
stacked = eqs.Stacked(star, {name: int(name == "l") for name in shapes})
optim = eqs.as_optax(stacked, learning_rate=2.0, weight_decay=0.1)
update = jax.jit(optim.update)


def run(params) -> Any:
    state = optim.init(params)
    for _ in range(3):
        updates, state = update(jtu.tree_map(jnp.sin, params), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


@jax.jit
def run_in_a_scan(params) -> Any:
    def step(before, _):
        params, state = before
        updates, state = optim.update(jtu.tree_map(jnp.sin, params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optim.init(params)), None, length=3)[0][0]


# What an AdaptiveSTAR has of each layer is partly a number, which depends on no parameter.
layers = eqs.as_optax(
    eqs.Stacked(eqs.AdaptiveSTAR(key=jr.key(2), direction_init=eqs.release_init), 1)
)
grads = {"l": params["l"], "m": params["l"][..., 0]}


def update_layers(grads) -> Any:
    return layers.update(grads, layers.init(grads), grads)[0]


expected, _ = run(params)
expected_layers = update_layers(grads)
for mesh in meshes.values():
    shardings = {name: NamedSharding(mesh, spec) for name, spec in specs.items()}
    sharded = jax.device_put(params, shardings)
    with jax.set_mesh(mesh):
        result, state = run(sharded)
        cut = jax.device_put(grads, NamedSharding(mesh, P("x")))
        ours = jax.jit(update_layers)(cut)
        for name, theirs in expected_layers.items():
            np.testing.assert_allclose(ours[name], theirs, rtol=1e-5, atol=1e-6)
    for name, spec in shardings.items():
        np.testing.assert_allclose(result[name], expected[name], rtol=1e-5, atol=1e-6)
        assert result[name].sharding.is_equivalent_to(spec, params[name].ndim)
        momentum = state.inner.accumulators["momentum"][0][name]
        assert momentum.sharding.is_equivalent_to(spec, params[name].ndim)
    fresh = eqs.Scaled(star).init(sharded).inner.accumulators["factored"][0]
    # The largest axis of t (3, 2, 4) is the last and the second largest the first.
    assert fresh.row["t"].sharding == NamedSharding(mesh, P(None, "y"))
    assert fresh.column["t"].sharding == NamedSharding(mesh, P("y", "x"))

# What a scan carries has one type from step to step: of explicit axes, its sharding too.
with jax.set_mesh(explicit := meshes[AxisType.Explicit]):
    where = {name: NamedSharding(explicit, spec) for name, spec in specs.items()}
    scanned = run_in_a_scan(jax.device_put(params, where))
for name in specs:
    np.testing.assert_allclose(scanned[name], expected[name], rtol=1e-5, atol=1e-6)

# All sums across devices cross at once for the whole tree: here of five tensors.
# Fully sharded, the means of squared gradients are one all-reduce, and the mean squares of
# all inputs the other. With tensors cut along both axes of a mesh, sums of a tensor's rows
# cross one of the two, those of its columns the other and its mean squares both. What an
# AdaptiveSTAR has of means more crosses with these. Nothing is gathered: of a multi-operand
# sum XLA would gather each of the 16 parts.
shapes = {"a": (256, 128), "b": (64, 32), "c": (128, 256), "d": (32,)}
line = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
mesh = meshes[AxisType.Auto]
cuts = {
    "fully sharded": (line, {n: P("x") for n in shapes}),
    "both axes": (
        mesh,
        {"a": P("x", "y"), "b": P("y", "x"), "c": P("x", "y"), "d": P("x")},
    ),
}
cuts["both explicit axes"] = (explicit, cuts["both axes"][1])


def count_collectives(optimizer, cut, order):
    mesh, specs = cuts[cut]
    # Two matrices of one shape, and one of each other.
    number = {n: 2 if n == "a" else 1 for n in shapes}
    tree = {n: [jnp.ones(s)] * number[n] for n, s in shapes.items()}
    where = {n: [NamedSharding(mesh, specs[n])] * number[n] for n in shapes}
    large = jax.device_put(tree, where)
    step = jax.jit(lambda g, s, p: optimizer.update(g, s, p)[::order])
    # Automatic axes need no mesh around what is compiled, explicit ones do.
    around = jax.set_mesh(mesh) if mesh is explicit else contextlib.nullcontext()
    with around:
        lowered = step.lower(large, optimizer.init(large), large)
    compiled = lowered.compile().as_text()
    kinds = re.findall(r"= .* (all-\w+|reduce-scatter|collective-\w+)\(", str(compiled))
    assert set(kinds) == {"all-reduce"}, kinds
    return len(kinds)


adaptive = eqs.AdaptiveSTAR(key=jr.key(1))
some = eqs.SampledMeans(star, every=4, least=8)
counts = {}
# The updates returned first, or the state.
for optimizer, cut, orders, most in (
    (star, "fully sharded", (1, -1), 2),
    (star, "both axes", (1,), 6),
    (adaptive, "fully sharded", (-1,), 2),
    (adaptive, "both axes", (1,), 6),
    (some, "fully sharded", (-1,), 2),
    (some, "both explicit axes", (1,), 6),
):
    found = [count_collectives(optimizer, cut, order) for order in orders]
    counts[type(optimizer).__name__, cut] = found
    assert max(found) <= most, counts
# Sampled elements do not depend on the devices; but where columns are known to be cut, each
# device has as many of each row and column of its own share.
tall = {"a": jr.normal(jr.key(4), (96, 24)), "b": jr.normal(jr.key(5), (160, 8))}
some_step = jax.jit(lambda t: some.update(t, some.init(t), t)[0])
of_one = some_step(tall)
for kind, mesh in meshes.items():
    same = [P(), P("x")] + [P("x", "y")] * (kind == AxisType.Auto)
    for spec in same:
        with jax.set_mesh(mesh):
            ours = some_step(jax.device_put(tall, NamedSharding(mesh, spec)))
        for name in tall:
            np.testing.assert_allclose(ours[name], of_one[name], rtol=1e-5, atol=1e-6)
with jax.set_mesh(explicit):
    both = jax.device_put(tall["a"], NamedSharding(explicit, P("x", "y")))
    found = jax.jit(lambda x: some.sample(x))(both)
assert found.sharding.is_equivalent_to(both.sharding, 2), found.sharding
taken = np.isin(tall["a"], found).reshape(2, 48, 2, 12)
for axis in (1, 3):
    assert 0 < taken.sum(axis).min() == taken.sum(axis).max() <= taken.shape[axis] / 3
# Small tensors of one shape: on two devices two stacks, and inside of a shard_map one.
small = [jr.normal(k, (6,)) for k in jr.split(jr.key(3), 8)]
alone = [star.update([p], star.init([p]), [p])[0][0] for p in small]
two = [jax.device_put(p, jax.devices()[i % 2]) for i, p in enumerate(small)]
apart, _ = star.update(two, star.init(two), two)
assert [x.device for x in apart] == [x.device for x in two]
line = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
of_one = lambda ps: star.update(ps, star.init(ps), ps)[0]
of_each = jax.jit(jax.shard_map(of_one, mesh=line, in_specs=P("x"), out_specs=P("x")))
in_four = of_each([jnp.tile(p, 4) for p in small])
for ours, theirs, shares in zip(apart, alone, in_four, strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(shares, jnp.tile(theirs, 4), rtol=1e-5, atol=1e-8)

print("sharded as its parameters, equal to unsharded; collectives:", counts)
