"""What meta-gradient estimators cost, in units of the same population's plain SGD.

    python benchmarks/estimators.py

Inner steps per second of each estimator as a share of a plain-SGD inner loop of as many
members under the same scan and vmap (medians of interleaved repetitions in one run),
compile time, and scratch memory against the window K. The inner problem is a digits MLP;
theta is a learned optimizer.
"""

import argparse
import statistics
import time

import equinox as eqx
import jax
import jax.random as jr
import optax

import equistar as eqs


LENGTH = eqs.ConstantLength(2000)
OPTIMIZERS = {
    "star": lambda: eqs.STAR(key=jr.key(0)),
    "hyperparam": lambda: eqs.HyperparamController(key=jr.key(0)),
    "sgd": lambda: eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1),
}


def estimators(window, pairs):
    """By name, an estimator with a window of `window` steps, and its members' number."""
    es = window, pairs, 0.01, LENGTH
    return {
        "PES": (eqs.PES(*es), 2 * pairs),
        "NRES": (eqs.NRES(*es), 2 * pairs),
        "TruncatedES": (eqs.TruncatedES(*es), 2 * pairs),
        "FullES": (eqs.FullES(window, pairs), 2 * pairs),
        "ForwardGradient, 1 direction": (
            eqs.ForwardGradient(window, pairs, LENGTH, directions=eqs.RandomDirections(1)),
            pairs,
        ),
        "TruncatedBackprop": (eqs.TruncatedBackprop(window, pairs, LENGTH), pairs),
        "TruncatedBackprop, segments": (
            eqs.TruncatedBackprop(window, pairs, LENGTH, remat=eqs.Segments()),
            pairs,
        ),
        "TruncatedBackprop, no remat": (
            eqs.TruncatedBackprop(window, pairs, LENGTH, remat=eqs.NoRematerialisation()),
            pairs,
        ),
        "FullBackprop": (eqs.FullBackprop(window, pairs), pairs),
        "PESAnalytic": (eqs.PESAnalytic(*es), 2 * pairs),
    }


def compiled_estimate(unroll, estimator, theta):
    """The compiled estimate, its arguments, and the seconds that compiling took."""
    state = eqx.filter_jit(estimator.init)(unroll, theta, key=jr.key(1))
    arguments = unroll, theta, state, jr.key(2)
    dynamic, static = eqx.partition(arguments, eqx.is_array)

    def run(dynamic):
        unroll, theta, state, key = eqx.combine(dynamic, static)
        out, state = estimator.estimate(unroll, theta, state, key=key)
        return out.gradient, out.meta_loss, state

    start = time.perf_counter()
    program = jax.jit(run).lower(dynamic).compile()
    return program, dynamic, time.perf_counter() - start


def compiled_sgd(task, window, members):
    """A plain-SGD inner loop of so many members, under the same scan and vmap."""
    step = eqs.OptaxOptimizer(optax.sgd, learning_rate=0.1)

    def run(dynamic):
        task_arrays, keys = dynamic
        one_task = eqx.combine(task_arrays, static)

        def body(states, key):
            one = lambda state, k: eqs.train_step(one_task, step, state, key=k)
            return jax.vmap(one)(states, jr.split(key, members))

        states = jax.vmap(lambda k: eqs.train_init(one_task, step, key=k))(
            jr.split(jr.key(0), members)
        )
        return jax.lax.scan(body, states, keys)[1]

    arrays, static = eqx.partition(task, eqx.is_array)
    dynamic = arrays, jr.split(jr.key(1), window)
    return jax.jit(run).lower(dynamic).compile(), dynamic


def seconds(programs, repetitions):
    """The median seconds of each program, repetitions interleaved."""
    taken = {name: [] for name in programs}
    for repetition in range(repetitions + 1):
        for name, (program, dynamic) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(dynamic))
            # The first one warms up.
            if repetition:
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="hyperparam")
    parser.add_argument("--window", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--windows", type=int, nargs="*", default=[16, 64, 256])
    settings = parser.parse_args()
    task = eqs.tasks.digits_mlp()
    unroll, theta = eqs.InnerTraining(task), OPTIMIZERS[settings.optimizer]()
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    print(
        f"{settings.optimizer} on the digits MLP, window {settings.window}, "
        f"{settings.pairs} pairs (particles of back-propagation and forward mode)\n"
    )
    programs, compile_seconds, members = {}, {}, {}
    for name, (estimator, n) in estimators(settings.window, settings.pairs).items():
        *program, compile_seconds[name] = compiled_estimate(unroll, estimator, theta)
        programs[name], members[name] = tuple(program), n
    for n in {*members.values()}:
        programs[n] = compiled_sgd(task, settings.window, n)
    taken = seconds(programs, settings.repetitions)
    for name, n in members.items():
        rate, share = n * settings.window / taken[name], taken[n] / taken[name]
        print(
            f"{name:30s} {rate:9.0f} inner steps/s  {share:6.1%} of SGD's  "
            f"compile {compile_seconds[name]:5.1f} s"
        )
    print(f"\nscratch in MB at windows of {settings.windows}")
    for name in members:
        sizes = []
        for window in settings.windows:
            estimator, _ = estimators(window, settings.pairs)[name]
            program, _, _ = compiled_estimate(unroll, estimator, theta)
            sizes.append(program.memory_analysis().temp_size_in_bytes / 1e6)
        print(f"{name:30s}", *(f"{size:8.2f}" for size in sizes))


if __name__ == "__main__":
    main()
