"""The cost of one update, in units of optax.adam's on the same tree.

    python benchmarks/update.py

Medians of interleaved repetitions in one run; compile time is of the first call.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import jax.random as jr
import optax

import equistar as eqs


TREES = {
    "4 x 1024x1024": [(1024, 1024)] * 4,
    "MLP 784-128-128-10": [(784, 128), (128,), (128, 128), (128,), (128, 10), (10,)],
}
OPTIMIZERS = {
    "optax.adam": lambda key: optax.adam(1e-3),
    "STAR": lambda key: eqs.as_optax(eqs.STAR(key=key)),
    "Blackbox": lambda key: eqs.as_optax(eqs.Blackbox(key=key)),
    "HyperparamController": lambda key: eqs.as_optax(eqs.HyperparamController(key=key)),
}


def _compiled(optim, params):
    """The compiled update, its state, and the seconds that compiling took."""
    state = optim.init(params)
    start = time.perf_counter()
    update = jax.jit(optim.update, donate_argnums=1).lower(params, state, params).compile()
    return update, state, time.perf_counter() - start


def measure(shapes, repetitions):
    """Seconds of each repetition, compile time and scratch bytes, by optimizer."""
    params = [jr.normal(jr.fold_in(jr.key(0), i), s) for i, s in enumerate(shapes)]
    grads = [jnp.sin(p) for p in params]
    programs = {n: _compiled(make(jr.key(1)), params) for n, make in OPTIMIZERS.items()}
    states = {name: state for name, (_, state, _) in programs.items()}
    seconds = {name: [] for name in programs}
    for repetition in range(repetitions + 2):
        for name, (update, _, _) in programs.items():
            start = time.perf_counter()
            updates, states[name] = update(grads, states[name], params)
            jax.block_until_ready(updates)
            # The first two warm up.
            if repetition >= 2:
                seconds[name].append(time.perf_counter() - start)
    return programs, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=30)
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    for tree, shapes in TREES.items():
        programs, seconds = measure(shapes, arguments.repetitions)
        adam = statistics.median(seconds["optax.adam"])
        print(f"\n{tree}")
        for name, (program, _, compile_time) in programs.items():
            median = statistics.median(seconds[name])
            scratch = program.memory_analysis().temp_size_in_bytes
            print(
                f"  {name:22s} {median / adam:5.1f} x adam  {1e3 * median:8.2f} ms  "
                f"compile {compile_time:5.1f} s  scratch {scratch / 1e6:6.1f} MB"
            )


if __name__ == "__main__":
    main()
