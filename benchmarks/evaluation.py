"""The cost of evaluating one optimizer over many seeds, in units of one seed's.

    python benchmarks/evaluation.py

On digits_mlp: wall-clock of the whole evaluation, compilation included, as a user waits
for it; and of a step alone, medians over segments and interleaved repetitions. The first is
wanted at most 3. The second is bound by arithmetic on a CPU: the time of all cores together
that one seed's step takes says how much of it there is.
"""

import argparse
import os
import statistics
import time

import jax
import jax.random as jr

import equistar as eqs
from equistar._evaluation._training import HeldOutLoss, Programs, train_many
from equistar._evaluation._tuning import as_batch


def measure(optimizer, seeds, steps, repetitions):
    """Seconds by number of seeds: of the first training in all, of a step, and of all
    cores for one seed's step."""
    task, programs = eqs.tasks.digits_mlp(), Programs()
    whole, seconds, cores = {}, {1: [], seeds: []}, {1: [], seeds: []}
    # What a process pays once is nobody's.
    jax.block_until_ready(task.init(key=jr.key(0)))
    for _ in range(repetitions):
        for number, found in seconds.items():
            started, cores_started = time.perf_counter(), time.process_time()
            curves = train_many(
                task,
                as_batch(optimizer),
                steps=steps,
                segment=max(1, steps // 10),
                keys=jr.split(jr.key(0), number),
                held_out=HeldOutLoss(),
                programs=programs,
                progress=eqs.NoProgress(),
                label="",
            )
            whole.setdefault(number, time.perf_counter() - started)
            found.append(curves.seconds_per_step)
            cores[number].append((time.process_time() - cores_started) / steps / number)
    median = lambda x: {number: statistics.median(found) for number, found in x.items()}
    # The first of these was compiled too.
    return whole, median(seconds), median({n: x[1:] or x for n, x in cores.items()})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    many = arguments.seeds
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    star = eqs.STAR(key=jr.key(0))
    whole, step, cores = measure(star, many, arguments.steps, arguments.repetitions)
    print(
        f"STAR on digits_mlp, {arguments.steps} steps, {many} seeds against 1\n"
        f"  in all, compilation included: {whole[many]:6.2f} s / {whole[1]:6.2f} s = "
        f"{whole[many] / whole[1]:.1f}\n"
        f"  a step: {1e3 * step[many]:6.3f} ms / {1e3 * step[1]:6.3f} ms = "
        f"{step[many] / step[1]:.1f}\n"
        f"  all cores, for one seed's step: {1e6 * cores[many]:.0f} us / "
        f"{1e6 * cores[1]:.0f} us, on {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
