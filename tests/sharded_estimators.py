"""Every estimator and meta-training, on one device and on a mesh of several.

    python sharded_estimators.py OUTPUT [COORDINATOR PROCESSES PROCESS]

Writes what the mesh of all devices gave, and compares it with one device where it can.
"""

import contextlib
import gc
import sys
import tempfile

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax

import equistar as eqs


# As in conftest.py: less time for the garbage collector.
gc.set_threshold(200_000, 20, 100)

LENGTH = eqs.LogUniformLength(4, 9)
ESTIMATORS = {
    "PES": eqs.PES(5, 8, 0.1, LENGTH),
    "NRES": eqs.NRES(5, 8, 0.1, LENGTH),
    "TruncatedES": eqs.TruncatedES(5, 8, 0.1, LENGTH),
    "FullES": eqs.FullES(LENGTH, 8, 0.1),
    "PESAnalytic": eqs.PESAnalytic(5, 8, 0.1, LENGTH),
    "TruncatedBackprop": eqs.TruncatedBackprop(5, 8, LENGTH),
    "FullBackprop": eqs.FullBackprop(LENGTH, 8),
    "ForwardGradient": eqs.ForwardGradient(5, 8, length=LENGTH),
}


def results():
    """By name, arrays that must not depend on the devices."""
    out = {}
    theta = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1, momentum=0.5)
    task = eqs.tasks.Quadratic(jnp.array([1.0, 0.3, 0.1]), noise=0.1)
    unroll = eqs.InnerTraining(task)
    for name, estimator in ESTIMATORS.items():
        result = eqs.meta_train(
            unroll, estimator, theta, optax.sgd(0.01), steps=3, key=jr.key(0)
        )
        out[f"{name} theta"] = np.stack(
            [np.asarray(x) for x in jtu.tree_leaves(result.theta)]
        )
        out[f"{name} meta-loss"] = result.history.meta_loss
        out[f"{name} norm"] = result.history.gradient_norm
        leaves = jtu.tree_leaves(result.state.particles)
        big = [x for x in leaves if x.ndim and len(x) == 8]
        shares = {x.addressable_shards[0].data.shape[0] for x in big}
        out[f"{name} share of a device"] = np.array(sorted(shares))
    return out


def resumed(first, second):
    """Theta of a run of which each half had a mesh of its own."""
    theta = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1, momentum=0.5)
    unroll = eqs.InnerTraining(eqs.tasks.Quadratic(jnp.array([1.0, 0.3]), noise=0.1))
    with tempfile.TemporaryDirectory() as folder:
        kept, result = eqs.Checkpoints(folder), None
        for mesh, steps in ((first, 2), (second, 4)):
            with jax.set_mesh(mesh):
                result = eqs.meta_train(
                    unroll,
                    ESTIMATORS["PES"],
                    theta,
                    steps=steps,
                    key=jr.key(0),
                    checkpoints=kept,
                )
    assert result is not None and len(result.history.meta_loss) == 4
    return np.stack([np.asarray(x) for x in jtu.tree_leaves(result.theta)])


def compare_resumed():
    """A run goes on with other devices than it began with."""
    one, all_devices = eqs.particle_mesh(jax.devices()[:1]), eqs.particle_mesh()
    expected = resumed(one, one)
    for first, second in ((one, all_devices), (all_devices, one)):
        np.testing.assert_allclose(resumed(first, second), expected, rtol=1e-5)


def refuse_folders_apart():
    """Only the first process writes: the other finds nothing in a folder of its own."""
    theta = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    unroll = eqs.InnerTraining(eqs.tasks.Quadratic(jnp.ones(2)))

    def refusal(steps, checkpoints):
        try:
            eqs.meta_train(
                unroll,
                ESTIMATORS["PES"],
                theta,
                steps=steps,
                key=jr.key(0),
                checkpoints=checkpoints,
            )
        except (eqs.CheckpointError, ValueError) as e:
            return str(e)
        return ""

    first = jax.process_index() == 0
    with tempfile.TemporaryDirectory() as folder, jax.set_mesh(eqs.particle_mesh()):
        kept = eqs.Checkpoints(folder)
        assert not refusal(1, kept)
        assert "do not find the same checkpoints" in refusal(2, kept)
        # What only one of them finds, or holds, ends both.
        other = "was written by a run" if first else "Another process of the run"
        assert other in refusal(2, eqs.Checkpoints(folder, settings={"sigma": 1.0}))
        held = kept.locked() if first else contextlib.nullcontext()
        with held:
            other = "Another run is using" if first else "Another process of the run"
            assert other in refusal(2, kept)


def main():
    output, *distributed = sys.argv[1:]
    if distributed:
        address, processes, process = distributed
        jax.distributed.initialize(address, int(processes), int(process))
    with jax.set_mesh(eqs.particle_mesh()):
        sharded = results()
    if distributed:
        refuse_folders_apart()
    else:
        compare_resumed()
        alone = results()
        for name in alone:
            if not name.endswith("device"):
                np.testing.assert_allclose(
                    sharded[name], alone[name], rtol=1e-5, err_msg=name
                )
    if jax.process_index() == 0:
        np.savez(output, **sharded)
    print("equal to one device" if not distributed else "done")


main()
