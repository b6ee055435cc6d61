"""The kit's sharding property on four devices: who passes it, and who does not."""

import jax
import jax.numpy as jnp
import optax
from jax.experimental.custom_partitioning import custom_partitioning

import equistar as eqs
import equistar.testing as kit


@custom_partitioning
def _local(x):
    return x * jnp.sum(x)


def _partition(mesh, arguments, result):
    # Wrong on purpose: each device sums its own part, and they never meet.
    sharding = arguments[0].sharding
    return mesh, lambda x: x * jnp.sum(x), sharding, (sharding,)


_local.def_partition(
    _partition,
    infer_sharding_from_operands=lambda mesh, arguments, result: arguments[0].sharding,
    sharding_rule="i j -> i j",
)


class SumsLocally(eqs.AbstractOptimizer):
    """Multiplies the gradient by its sum over one device."""

    def init(self, params):
        return jnp.zeros(())

    def update(self, grads, state, params, **extra):
        return {"w": -_local(grads["w"])}, state


def main():
    assert len(jax.devices()) == 4
    sharded = [kit.ShardedEqualsUnsharded()]
    kit.check(optax.adam(0.1), sharded)
    kit.check(eqs.HyperparamController(key=jax.random.key(0)), sharded)
    try:
        kit.check(SumsLocally(), sharded)
    except AssertionError as e:
        print(e)


main()
