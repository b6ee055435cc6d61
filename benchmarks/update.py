"""The cost of one update, in units of optax.adam's on the same tree.

    python benchmarks/update.py
    python benchmarks/update.py --fast

Medians and minima of interleaved repetitions in one run, once alone and once under vmap
over 16 different optimizers; tracing and compiling are of the first call. The state is
donated and returned first, so that it stays where it is: JAX pairs donated arrays with
results of their shape in order, and with the updates first every optimizer copies its
state.
`--fast` compiles all of them, Adam too, with XLA's fast-math and 512-bit vectors;
`--clock cpu` counts the processor time of all threads, which a busy machine disturbs less.
"""

import argparse
import os
import statistics
import time

import jax
import jax.random as jr
import jax.tree_util as jtu
import optax

import equistar as eqs


_BLOCK = [(128,)] * 6 + [(128, 384), (384,), (128, 128), (128, 512), (512,), (512, 128)]
TREES = {
    "4 x 1024x1024": [(1024, 1024)] * 4,
    "MLP 784-128-128-10": [(784, 128), (128,), (128, 128), (128,), (128, 10), (10,)],
    "transformer, 12 blocks": [(1000, 128), (128, 128), (128,), (128,)] + _BLOCK * 12,
}
# What `make` gives are arguments of the program: as constants, XLA would compute with them
# (a direction head of zeros takes the whole network away).
OPTIMIZERS = {
    "optax.adam": lambda key: jr.uniform(key),
    "STAR": lambda key: eqs.STAR(key=key),
    "Blackbox": lambda key: eqs.Blackbox(key=key),
    "HyperparamController": lambda key: eqs.HyperparamController(key=key),
    "AdaptiveSTAR": lambda key: eqs.AdaptiveSTAR(key=key),
    "STAR, sampled means": lambda key: eqs.SampledMeans(eqs.STAR(key=key)),
    "AdaptiveSTAR, sampled": lambda key: eqs.SampledMeans(eqs.AdaptiveSTAR(key=key)),
}
FAST = {
    "xla_cpu_enable_fast_math": True,
    "xla_cpu_fast_math_honor_nans": True,
    "xla_cpu_fast_math_honor_infs": True,
    "xla_cpu_prefer_vector_width": 512,
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def _transformation(theta):
    """optax.adam with the learning rate `theta`, or the optimizer `theta` itself."""
    return optax.adam(theta) if isinstance(theta, jax.Array) else theta


class Program:
    """The compiled update of one optimizer on one tree of parameters."""

    def __init__(self, make, params, members, options, clock):
        self.params, self.clock, self.seconds = params, clock, []
        self.grads = jtu.tree_map(lambda p: p / (1 + p * p), params)
        keys = jr.split(jr.key(1), members)
        init = lambda theta, params: _transformation(theta).init(params)

        def step(state, theta, grads, params):
            updates, state = _transformation(theta).update(grads, state, params)
            return state, updates

        if members > 1:
            init, step, make = jax.vmap(init), jax.vmap(step), jax.vmap(make)
        self.theta = make(keys if members > 1 else keys[0])
        self.state = jax.jit(init)(self.theta, params)
        arguments = self.state, self.theta, self.grads, params
        start = clock()
        lowered = jax.jit(step, donate_argnums=0).lower(*arguments)
        self.trace_time = clock() - start
        start = clock()
        self.run = lowered.compile(compiler_options=options)
        self.compile_time = clock() - start

    def __call__(self):
        start = self.clock()
        self.state, updates = self.run(self.state, self.theta, self.grads, self.params)
        jax.block_until_ready((self.state, updates))
        self.seconds.append(self.clock() - start)


def measure(shapes, members, options, clock, repetitions):
    """The programs of all optimizers, each having run, repetitions interleaved."""
    leading = (members,) if members > 1 else ()
    params = [
        jr.normal(jr.fold_in(jr.key(0), i), leading + s) for i, s in enumerate(shapes)
    ]
    programs = {
        name: Program(make, params, members, options, clock)
        for name, make in OPTIMIZERS.items()
    }
    for _ in range(repetitions + 2):
        for program in programs.values():
            program()
    return programs, max(p.nbytes for p in params)


def report(programs, largest):
    # The first two calls warm up.
    times = {name: program.seconds[2:] for name, program in programs.items()}
    unit = times["optax.adam"]
    for name, program in programs.items():
        median, least = statistics.median(times[name]), min(times[name])
        scratch = program.run.memory_analysis().temp_size_in_bytes
        print(
            f"  {name:22s} {median / statistics.median(unit):5.1f} x adam "
            f"(minima {least / min(unit):5.1f})  {1e3 * median:8.2f} ms  "
            f"trace {program.trace_time:4.1f} s  compile {program.compile_time:5.1f} s  "
            f"scratch {scratch / largest:5.2f} x "
            "the largest tensor"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--trees", nargs="+", choices=TREES, default=list(TREES))
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    settings = parser.parse_args()
    options = FAST if settings.fast else {}
    print(
        f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {os.cpu_count()} cores, "
        f"{settings.clock} time{', fast-math, 512-bit vectors' if settings.fast else ''}"
    )
    runs = [(name, 1) for name in settings.trees]
    runs += [(t, settings.members) for t in settings.trees if t == "MLP 784-128-128-10"]
    for tree, members in runs:
        under = f", under vmap over {members} optimizers" if members > 1 else ""
        print(f"\n{tree}{under}")
        clock = CLOCKS[settings.clock]
        report(*measure(TREES[tree], members, options, clock, settings.repetitions))


if __name__ == "__main__":
    main()
