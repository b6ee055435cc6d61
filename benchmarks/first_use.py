"""What one waits for before the first step: the import, and the first update.

    python benchmarks/first_use.py

The import is timed in new interpreters, above that of jax, equinox and optax. The first
update of a shape, outside of `jax.jit`, traces and compiles one program; another tensor of
that shape runs it.
"""

import argparse
import statistics
import subprocess
import sys
import time

import jax
import jax.random as jr

import equistar as eqs


SHAPES = [(1024, 1024), (784, 128), (1 << 20,), (128,), (3, 3, 64, 64), ()]
OPTIMIZERS = {
    "STAR": lambda key: eqs.STAR(key=key),
    "Blackbox": lambda key: eqs.Blackbox(key=key),
    "AdaptiveSTAR": lambda key: eqs.AdaptiveSTAR(key=key),
}
IMPORT = """
import time
start = time.perf_counter()
import jax, equinox, optax
middle = time.perf_counter()
import equistar
print(middle - start, time.perf_counter() - middle)
"""


def import_times(repetitions):
    """Of jax, equinox and optax, and of equistar after them, in seconds."""
    command = [sys.executable, "-c", IMPORT]
    run = lambda: subprocess.run(command, capture_output=True, text=True, check=True)
    # The first writes bytecode.
    lines = [run().stdout.split() for _ in range(repetitions + 1)][1:]
    return [statistics.median(map(float, column)) for column in zip(*lines, strict=True)]


def update_time(optimizer, param):
    """Of one update of one tensor, in seconds; the state is there before."""
    state = optimizer.init(param)
    grad = param / 2
    jax.block_until_ready((state, grad))
    start = time.perf_counter()
    jax.block_until_ready(optimizer.update(grad, state, param))
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=5, help="of the import")
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    others, ours = import_times(arguments.repetitions)
    print(f"import jax, equinox, optax: {others:.2f} s; equistar after them: {ours:.2f} s")
    print(f"{'first update, s':24s}{'tensor':>14s}{'first':>10s}{'equal shape':>14s}")
    for name, make in OPTIMIZERS.items():
        optimizer = make(jr.key(0))
        for shape in SHAPES:
            params = [jr.normal(jr.key(i), shape) for i in range(2)]
            first, second = (update_time(optimizer, p) for p in params)
            tensor = "x".join(map(str, shape)) or "scalar"
            print(f"{name:24s}{tensor:>14s}{first:10.2f}{second:14.3f}", flush=True)


if __name__ == "__main__":
    main()
