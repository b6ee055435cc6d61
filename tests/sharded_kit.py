"""Run by test_testing_kit.py in a process with four devices; prints what it found."""

import gc

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import optax
from jax.experimental.custom_partitioning import custom_partitioning

import equistar as eqs
import equistar.testing as kit


# As in conftest.py: less time for the garbage collector.
gc.set_threshold(200_000, 20, 100)


# What is a mean over the whole array on one device is one over each shard on several.
@custom_partitioning
def less_its_mean(x):
    return x - jnp.mean(x)


less_its_mean.def_partition(
    partition=lambda mesh, arguments, result: (
        mesh,
        lambda x: x - jnp.mean(x),
        arguments[0].sharding,
        (arguments[0].sharding,),
    ),
    infer_sharding_from_operands=lambda mesh, arguments, result: arguments[0].sharding,
    sharding_rule="i j -> i j",
)


class Broken(eqs.AbstractOptimizer):
    def init(self, params):
        return None

    def update(self, grads, state, params, **extra):
        return jtu.tree_map(lambda g: -0.1 * less_its_mean(g), grads), state


assert len(jax.devices()) == 4
prop = kit.ShardedEqualsUnsharded()
for optimizer in (optax.adam(0.1), eqs.HyperparamController(key=jr.key(0))):
    kit.check(optimizer, [prop])
try:
    prop(Broken())
except AssertionError as e:
    assert str(e).startswith("ShardedEqualsUnsharded"), e
    print("equal to unsharded; the broken one fails")
