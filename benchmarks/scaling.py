"""Weak scaling of meta-training over devices and processes, and the bytes it moves.

    python benchmarks/scaling.py

Every device has as many pairs, so the time of a meta-step would not change if devices cost
nothing to one another. CPU devices share the machine's cores: a device is given one thread,
and where there are more devices than cores the time must grow by their ratio. Each
configuration is a set of processes of its own; the medians of interleaved rounds are
printed, with what the compiled meta-step sends between devices.
"""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.random as jr
import jax.tree_util as jtu

import equistar as eqs
from equistar._meta_training._meta_step import _estimate, _step_keys


# Processes, and devices of each.
CONFIGURATIONS = ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2))
_SHAPE = re.compile(r"(pred|[sufb]\w*?)(\d*)\[([\d,]*)\]")
_COLLECTIVE = re.compile(
    r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\("
)


def collectives(text):
    """By kind, how many there are in a compiled program and the bytes that they give."""
    out = {}
    for shapes, kind in _COLLECTIVE.findall(text):
        count, size = out.get(kind, (0, 0))
        out[kind] = count + 1, size + sum(map(_bytes, _SHAPE.findall(shapes)))
    return out


def _bytes(shape):
    kind, bits, dimensions = shape
    n = 1
    for d in filter(None, dimensions.split(",")):
        n *= int(d)
    return n * (1 if kind == "pred" else int(bits) // 8)


def measure(settings):
    """One configuration, in this process: what it prints is one line of JSON."""
    if settings.address:
        jax.distributed.initialize(settings.address, settings.processes, settings.index)
    unroll = eqs.InnerTraining(eqs.tasks.digits_mlp())
    pairs = settings.pairs * len(jax.devices())
    estimator = eqs.PES(settings.window, pairs)
    outer, theta = eqs.default_outer(), eqs.STAR(key=jr.key(0))
    with jax.set_mesh(eqs.particle_mesh()):
        state = eqs.meta_train_init(unroll, estimator, theta, outer, key=jr.key(1))
        keys = _step_keys(state.key, state.step, 1)
        spec = eqx.is_inexact_array
        arguments = unroll, estimator, state.theta, spec, state.particles[0], keys[0]
        program = _estimate.lower(*arguments).compile()
        moved = collectives(program.compiled.as_text())
        # Each device's share of the particles.
        size = sum(
            s.data.nbytes
            for x in jtu.tree_leaves(eqx.filter(state.particles, eqx.is_array))
            if not jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
            for s in x.addressable_shards[:1]
        )
        taken = []
        for _ in range(settings.steps + 1):
            start = time.perf_counter()
            state, metrics = eqs.meta_train_step(unroll, estimator, outer, state)
            jax.device_get(metrics)
            taken.append(time.perf_counter() - start)
    seconds = statistics.median(taken[1:])
    print(json.dumps({"seconds": seconds, "collectives": moved, "particles": size}))


def start(settings, processes, devices):
    """The result of the first process of a configuration."""
    flags = (
        f"--xla_force_host_platform_device_count={devices} "
        "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    with socket.socket() as s:
        s.bind(("localhost", 0))
        address = f"localhost:{s.getsockname()[1]}" if processes > 1 else ""
    sizes = f"--steps {settings.steps} --pairs {settings.pairs} --window {settings.window}"
    run = lambda i: subprocess.Popen(
        [
            *(sys.executable, __file__, "--measure", *sizes.split()),
            *("--address", address, "--processes", str(processes), "--index", str(i)),
        ],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    running = [run(i) for i in range(processes)]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("A process failed.")
    return json.loads(outputs[0].splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4, help="of each device")
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("--steps", type=int, default=20, help="meta-steps of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--address", default="", help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=int, default=0, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.measure:
        measure(settings)
        return
    results = {configuration: [] for configuration in CONFIGURATIONS}
    for _ in range(settings.rounds):
        for configuration in CONFIGURATIONS:
            results[configuration].append(start(settings, *configuration))
    cores = os.cpu_count() or 1
    print(
        f"STAR on the digits MLP by PES, window {settings.window}, {settings.pairs} pairs "
        f"a device, {cores} cores, jax {jax.__version__}\n"
    )
    alone = statistics.median(r["seconds"] for r in results[1, 1])
    for (processes, devices), rounds in results.items():
        seconds = statistics.median(r["seconds"] for r in rounds)
        # What it would take if devices cost one another nothing.
        ideal = alone * max(1, processes * devices / cores)
        sent = [f"{n} {k} of {b} B" for k, (n, b) in rounds[0]["collectives"].items()]
        print(
            f"{processes} x {devices} devices  {1e3 * seconds:7.1f} ms a meta-step  "
            f"{ideal / seconds:5.0%} of ideal  "
            f"particles {rounds[0]['particles'] / 1e6:.2f} MB a device  {', '.join(sent)}"
        )


if __name__ == "__main__":
    main()
