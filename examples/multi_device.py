"""Meta-training on several devices: the same numbers as on one, to rounding.

    python examples/multi_device.py

It makes four devices of the CPU, as `XLA_FLAGS=--xla_force_host_platform_device_count=4`
does. On a machine with several GPUs or TPUs leave out that line, and the mesh holds those.
With `EQUISTAR_SMOKE` set, sizes are tiny.
"""

import os

import equinox as eqx
import jax
import jax.random as jr
import jax.tree_util as jtu
import numpy as np

import equistar as eqs


# Devices are chosen at the first computation, so this comes before it.
jax.config.update("jax_num_cpu_devices", 4)
SMOKE = bool(os.environ.get("EQUISTAR_SMOKE"))


def meta_train(mesh: jax.sharding.Mesh) -> eqs.MetaTrainResult:
    """The same call, whatever the mesh."""
    unroll = eqs.InnerTraining(eqs.tasks.digits_mlp(hidden=() if SMOKE else (16,)))
    # The pairs are spread over the devices: choose a multiple of their number.
    estimator = eqs.PES(window=5, pairs=8, length=20)
    nominal = eqs.NominalTerm(scale=eqs.LearnedScale(1e-2))
    optimizer = eqs.LearnedOptimizer(nominal=nominal) if SMOKE else eqs.STAR(key=jr.key(0))
    with jax.set_mesh(mesh):
        return eqs.meta_train(
            unroll,
            estimator,
            optimizer,
            eqs.default_outer(1e-3),
            steps=3 if SMOKE else 50,
            key=jr.key(1),
        )


def say_where(name: str, tree) -> None:
    """The largest array of a tree, its sharding, and what of it each device has."""
    x = max(jtu.tree_leaves(eqx.filter(tree, eqx.is_array)), key=lambda x: x.size)
    print(f"{name}: {x.shape}, spread over {tuple(x.sharding.spec)}")
    for shard in x.addressable_shards:
        print(f"  device {shard.device.id} holds {shard.data.shape}")


def main() -> None:
    devices = jax.devices()
    print(f"{len(devices)} devices: {[str(device) for device in devices]}")
    several = meta_train(eqs.particle_mesh())
    # What is trained in the episodes is spread; what is learned is on all devices.
    say_where("networks in training", several.state.particles)
    say_where("the optimizer", several.theta)

    one = meta_train(eqs.particle_mesh(devices[:1]))
    pairs = zip(
        jtu.tree_leaves(eqx.filter(several.theta, eqx.is_inexact_array)),
        jtu.tree_leaves(eqx.filter(one.theta, eqx.is_inexact_array)),
        strict=True,
    )
    apart = max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)
    print(f"after {len(one.history.meta_loss)} meta-steps on {len(devices)} devices and")
    print(f"on one, the optimizers differ by at most {apart:.1e}")
    assert apart < 1e-3, "the device count must not change the result beyond rounding"


if __name__ == "__main__":
    main()
