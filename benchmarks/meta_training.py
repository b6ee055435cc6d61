"""The cost of meta-training, in units of the same population's plain-SGD inner loop.

    python benchmarks/meta_training.py
    python benchmarks/meta_training.py --fast
    python benchmarks/meta_training.py --clock cpu

Truncated PES of STAR on an MLP 784-128-128-10: the time of one window beside that of as
many plain-SGD inner loops under the same scan and vmap, with two numbers of pairs; and
back-propagation through a window on the digits MLP beside its forward pass. `--fast`
compiles all of them, the plain loops too, with XLA's fast-math and 512-bit vectors;
`--sampled-means` is PES of a STAR in `equistar.SampledMeans`;
`--clock cpu` counts the processor time of all threads, which a busy machine disturbs less.
Medians and minima of interleaved repetitions in one run.
"""

import argparse
import os
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

import equistar as eqs
from equistar._estimators._particles import same_members
from equistar._estimators._rollout import advance, particle_keys


FAST = {
    "xla_cpu_enable_fast_math": True,
    "xla_cpu_fast_math_honor_nans": True,
    "xla_cpu_fast_math_honor_infs": True,
    "xla_cpu_prefer_vector_width": 512,
}


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


class Program:
    """A function compiled for its arguments; `seconds` of its calls."""

    clock = time.perf_counter

    def __init__(self, function, arguments, options):
        dynamic, static = eqx.partition(arguments, eqx.is_array)
        run = lambda d: eqx.filter(function(*eqx.combine(d, static)), eqx.is_array)
        start = self.clock()
        self.run = jax.jit(run).lower(dynamic).compile(compiler_options=options)
        self.compile_time = self.clock() - start
        self.arguments = dynamic
        self.seconds = []

    def __call__(self):
        start = self.clock()
        jax.block_until_ready(self.run(self.arguments))
        self.seconds.append(self.clock() - start)

    @property
    def scratch(self):
        return self.run.memory_analysis().temp_size_in_bytes / 1e6


def mlp_784(batch_size):
    """An MLP 784-128-128-10 on made-up data: only its cost matters here."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6000, 28, 28)).astype(np.uint8)
    labels = rng.integers(0, 10, 6000)
    data = eqs.tasks.dataset_from_arrays(images, labels, scale=1 / 255)
    return eqs.tasks.Classification(data, eqs.tasks.MLP((128, 128)), batch_size)


def pes(task, theta, window, pairs, options):
    unroll = eqs.InnerTraining(task)
    estimator = eqs.PES(window, pairs, 0.01, eqs.ConstantLength(2000))
    state = eqx.filter_jit(estimator.init)(unroll, theta, key=jr.key(1))

    def run(unroll, theta, state, key):
        out, state = estimator.estimate(unroll, theta, state, key=key)
        return out.gradient, out.meta_loss, state

    return Program(run, (unroll, theta, state, jr.key(2)), options)


def sgd(task, window, members, options):
    """A plain-SGD inner loop of so many members, under the same scan and vmap."""
    rule = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)
    start = eqx.filter_jit(jax.vmap(lambda k: eqs.train_init(task, rule, key=k)))
    states = start(jr.split(jr.key(0), members))

    def run(task, states, keys):
        def body(states, key):
            one = lambda state, k: eqs.train_step(task, rule, state, key=k)
            return jax.vmap(one)(states, jr.split(key, members))

        return jax.lax.scan(body, states, keys)

    return Program(run, (task, states, jr.split(jr.key(1), window)), options)


def backprop(window, remat, options):
    """Back-propagation through a window of STAR on the digits MLP; its forward pass."""
    unroll, theta = eqs.InnerTraining(eqs.tasks.digits_mlp()), eqs.STAR(key=jr.key(0))
    estimator = eqs.TruncatedBackprop(window, 1, eqs.ConstantLength(2000), remat=remat)
    state = eqx.filter_jit(estimator.init)(unroll, theta, key=jr.key(1))

    def reverse(unroll, theta, state, key):
        out, state = estimator.estimate(unroll, theta, state, key=key)
        return out.gradient, out.meta_loss, state

    def forward(unroll, theta, state, key):
        settings = estimator.length, window, particle_keys(key, 1)
        members = same_members(theta, 1, 1)
        after, ran = advance(unroll, members, state, *settings, scan=jax.lax.scan)
        return after, jnp.mean(ran.losses)

    arguments = unroll, theta, state, jr.key(2)
    return [Program(f, arguments, options) for f in (reverse, forward)]


def ratio(program, unit):
    """The ratio of the medians, and of the minima, leaving out the first call."""
    pick = statistics.median, min
    return "{:.2f} (minima {:.2f})".format(
        *(f(program.seconds[1:]) / f(unit.seconds[1:]) for f in pick)
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("--pairs", type=int, nargs=2, default=[4, 16])
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--sampled-means", action="store_true")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    settings = parser.parse_args()
    Program.clock = CLOCKS[settings.clock]
    options = FAST if settings.fast else {}
    print(
        f"jax {jax.__version__} on {jax.devices()[0].device_kind}, {os.cpu_count()} cores, "
        f"{settings.clock} time{', fast-math, 512-bit vectors' if settings.fast else ''}\n"
    )
    task, window = mlp_784(settings.batch_size), settings.window
    theta, programs = eqs.STAR(key=jr.key(0)), {}
    if settings.sampled_means:
        theta = eqs.SampledMeans(theta)
    for pairs in settings.pairs:
        programs[pairs] = pes(task, theta, window, pairs, options)
        programs[f"sgd {pairs}"] = sgd(task, window, 2 * pairs, options)
    remats = {"Segments": eqs.Segments(), "EveryStep": eqs.EveryStep()}
    for name, remat in remats.items():
        programs[name], programs["forward"] = backprop(window, remat, options)
    for _ in range(settings.repetitions + 1):
        for program in programs.values():
            program()
    print(f"PES on an MLP 784-128-128-10, batch {settings.batch_size}, window {window}")
    cost = {}
    for pairs in settings.pairs:
        star, unit = programs[pairs], programs[f"sgd {pairs}"]
        cost[pairs] = statistics.median(star.seconds[1:]) / (2 * pairs * window)
        print(
            f"  {pairs:3d} pairs: {ratio(star, unit)} x plain SGD  "
            f"{1e3 * cost[pairs]:.2f} ms an inner step of a particle  "
            f"compile {star.compile_time:.1f} s  scratch {star.scratch:.0f} MB"
        )
    few, many = settings.pairs
    print(f"  a particle's step with {many} pairs costs {cost[many] / cost[few]:.2f} x")
    forward = programs["forward"]
    print(f"\nBack-propagation through {window} steps on the digits MLP")
    for name in remats:
        reverse = programs[name]
        print(
            f"  {name}: {ratio(reverse, forward)} x the forward pass  "
            f"compile {reverse.compile_time:.1f} s  scratch {reverse.scratch:.1f} MB "
            f"(forward {forward.scratch:.1f} MB)"
        )


if __name__ == "__main__":
    main()
