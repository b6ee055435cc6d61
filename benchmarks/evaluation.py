"""The cost of evaluating one optimizer over many seeds, in units of one seed's.

    python benchmarks/evaluation.py

Seconds of a step of the whole program on digits_mlp, medians over segments; interleaved.
"""

import argparse
import statistics

import jax
import jax.random as jr

import equistar as eqs
from equistar._evaluation._training import HeldOutLoss, Programs, train_many
from equistar._evaluation._tuning import as_batch


def measure(optimizer, seeds, steps, repetitions):
    """Seconds a step with one seed, and with `seeds`."""
    task, programs = eqs.tasks.digits_mlp(), Programs()
    seconds = {1: [], seeds: []}
    for _ in range(repetitions):
        for number, found in seconds.items():
            curves = train_many(
                task,
                as_batch(optimizer),
                steps=steps,
                segment=steps // 10,
                keys=jr.split(jr.key(0), number),
                held_out=HeldOutLoss(),
                programs=programs,
                progress=eqs.NoProgress(),
                label="",
            )
            found.append(curves.seconds_per_step)
    return statistics.median(seconds[1]), statistics.median(seconds[seeds])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    star = eqs.STAR(key=jr.key(0))
    one, many = measure(star, arguments.seeds, arguments.steps, arguments.repetitions)
    print(
        f"STAR on digits_mlp: {1e3 * one:.3f} ms a step with 1 seed, {1e3 * many:.3f} ms "
        f"with {arguments.seeds}: {many / one:.1f} times (wanted: at most 3)"
    )


if __name__ == "__main__":
    main()
