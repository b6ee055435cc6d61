"""What STAR costs on the device at hand: an update, a training step, and meta-training.

    python benchmarks/accelerator.py
    python benchmarks/accelerator.py --size small --pairs 4

A decoder-only transformer of 110 million parameters (`--size small` is for a laptop): the
update of all its parameters and their change, and a whole training step on made-up text,
with each learned optimizer beside optax.adam. Then truncated PES of STAR on an MLP
784-128-128-10 beside as many plain-SGD inner loops, which `meta_training.py` explains.
Medians and minima of interleaved repetitions in one run; parameters and state are donated.
"""

import argparse
import os
import statistics
import time

import equinox as eqx
import jax
import jax.random as jr
import jax.tree_util as jtu
import meta_training
import numpy as np
import optax

import equistar as eqs


# Blocks, width, heads and tokens of the transformer; the windows of a minibatch and their
# length.
SIZES = {
    "110m": ((12, 768, 12), 16384, 8, 512),
    "small": ((2, 64, 2), 256, 4, 32),
}
OPTIMIZERS = {
    "optax.adam": lambda key: eqs.OptaxOptimizer(optax.adam, learning_rate=1e-3),
    "STAR": lambda key: eqs.STAR(key=key),
    "Blackbox": lambda key: eqs.Blackbox(key=key),
    "AdaptiveSTAR": lambda key: eqs.AdaptiveSTAR(key=key),
    "AdaptiveSTAR, sampled": lambda key: eqs.SampledMeans(eqs.AdaptiveSTAR(key=key)),
}


def transformer(size):
    """A language model on made-up text: only its cost matters here."""
    shape, vocabulary, batch_size, length = SIZES[size]
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocabulary, 1000 * length)
    text = eqs.tasks.text_from_tokens(tokens, vocabulary)
    architecture = eqs.tasks.Transformer(*shape)
    return eqs.tasks.LanguageModelling(text, architecture, length, batch_size)


class Loop:
    """A compiled step from parameters and state to new ones; `seconds` of its calls."""

    def __init__(self, step, optimizer, params, rest):
        # A copy: it is donated.
        self.carry = (
            jtu.tree_map(lambda x: x + 0, params),
            eqx.filter_jit(optimizer.init)(params),
        )
        self.rest, self.seconds = (optimizer, *rest), []
        start = time.perf_counter()
        dynamic, static = eqx.partition(self.rest, eqx.is_array)
        run = lambda carry, dynamic: step(carry, *eqx.combine(dynamic, static))
        lowered = jax.jit(run, donate_argnums=0).lower(self.carry, dynamic)
        self.run, self.rest = lowered.compile(), dynamic
        self.compile_time = time.perf_counter() - start

    def __call__(self):
        start = time.perf_counter()
        self.carry = jax.block_until_ready(self.run(self.carry, self.rest))
        self.seconds.append(time.perf_counter() - start)


def apply(carry, optimizer, grads):
    params, state = carry
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def train(carry, optimizer, task, key):
    grads = jax.grad(lambda p: task.loss(p, key=key))(carry[0])
    return apply(carry, optimizer, grads)


def compare(step, params, rest, repetitions):
    """The steps of all optimizers, one after another in memory, and their ratios."""
    loops = {}
    for name, make in OPTIMIZERS.items():
        loops[name] = Loop(step, make(jr.key(0)), params, rest)
    # The first two calls warm up.
    for _ in range(repetitions + 2):
        for loop in loops.values():
            loop()
    unit = loops["optax.adam"].seconds[2:]
    for name, loop in loops.items():
        median, least = statistics.median(loop.seconds[2:]), min(loop.seconds[2:])
        scratch = loop.run.memory_analysis().temp_size_in_bytes
        print(
            f"  {name:21s} {median / statistics.median(unit):5.2f} x adam "
            f"(minima {least / min(unit):5.2f})  {1e3 * median:9.2f} ms  "
            f"compile {loop.compile_time:5.1f} s  scratch {scratch / 1e6:7.1f} MB"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="110m")
    parser.add_argument("--pairs", type=int, default=256)
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("--repetitions", type=int, default=20)
    settings = parser.parse_args()
    device = jax.devices()[0]
    print(
        f"jax {jax.__version__} on {device.platform}: {device.device_kind}, "
        f"{os.cpu_count()} cores of the host"
    )
    task = transformer(settings.size)
    params = jax.jit(lambda key: task.init(key=key))(jr.key(0))
    count = sum(x.size for x in jtu.tree_leaves(params)) / 1e6
    print(f"\nUpdate and apply, transformer of {count:.1f} million parameters")
    grads = jtu.tree_map(lambda p: 0.01 * p, params)
    compare(apply, params, (grads,), settings.repetitions)
    print(f"\nTraining step, {task.batch_size} windows of {task.length} tokens")
    compare(train, params, (task, jr.key(1)), settings.repetitions)
    print(f"\nPES on an MLP 784-128-128-10, window {settings.window}")
    mlp = meta_training.mlp_784(128)
    theta = eqs.STAR(key=jr.key(0))
    star = meta_training.pes(mlp, theta, settings.window, settings.pairs, {})
    unit = meta_training.sgd(mlp, settings.window, 2 * settings.pairs, {})
    for _ in range(settings.repetitions // 4 + 2):
        star()
        unit()
    print(
        f"  {settings.pairs} pairs: {meta_training.ratio(star, unit)} x plain SGD  "
        f"compile {star.compile_time:.1f} s  scratch {star.scratch:.0f} MB"
    )


if __name__ == "__main__":
    main()
