"""What an approximation changes: the training loss, and the time of an update.

    python benchmarks/approximations.py bfloat16-momenta
    python benchmarks/approximations.py sampled-means --tasks digits_24x24 digits_mlp_wide

Pretrained optimizers as they are, and with `equistar.InBFloat16` momenta or with
`equistar.SampledMeans`: the mean training loss of the same networks on the same
minibatches, relative to as they are; and the update of a 1024x1024 matrix, medians of
interleaved repetitions. `digits_24x24` is an MLP 576-128-128-10 on digits whose pixels are
nine each, so that its matrices are as large as those of other data sets.
"""

import argparse
import statistics
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import sklearn.datasets

import equistar as eqs
from equistar._inner_training import training_curves


def bfloat16_momenta(optimizer):
    bank = optimizer.accumulators
    bank = {**bank, "momentum": eqs.InBFloat16(bank["momentum"])}
    return eqx.tree_at(lambda o: o.accumulators, optimizer, bank)


APPROXIMATIONS = {
    "bfloat16-momenta": bfloat16_momenta,
    "sampled-means": eqs.SampledMeans,
}


def digits_24x24():
    digits = sklearn.datasets.load_digits()
    images = np.kron(digits.images, np.ones((1, 3, 3))).astype(np.uint8)
    data = eqs.tasks.dataset_from_arrays(images, digits.target, scale=1 / 16)
    return eqs.tasks.Classification(data, eqs.tasks.MLP((128, 128)), batch_size=64)


def named(task):
    return digits_24x24() if task == "digits_24x24" else eqs.tasks.named(task)


def mean_loss(task, optimizer, steps, keys):
    losses = training_curves(task, optimizer, steps=steps, keys=keys)
    return np.asarray(jnp.mean(losses, axis=1))


def update_times(optimizers, repetitions):
    param = jr.normal(jr.key(0), (1024, 1024))
    seconds = {name: [] for name in optimizers}
    programs, states = {}, {}
    for name, optimizer in optimizers.items():
        optim = eqs.as_optax(optimizer)
        step = lambda g, s, p, optim=optim: optim.update(g, s, p)[::-1]
        programs[name] = jax.jit(step, donate_argnums=1)
        states[name] = optim.init(param)
    for _ in range(repetitions + 2):
        for name, program in programs.items():
            start = time.process_time()
            states[name], update = program(param, states[name], param)
            jax.block_until_ready(update)
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(found[2:]) for name, found in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("approximation", choices=APPROXIMATIONS)
    parser.add_argument("--optimizers", nargs="+", default=["star-best", "star"])
    parser.add_argument(
        "--tasks", nargs="+", default=["digits_mlp", "digits_mlp_wide", "digits_convnet"]
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=8)
    settings = parser.parse_args()
    keys = jr.split(jr.key(0), settings.seeds)
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}")
    for name in settings.optimizers:
        exact = eqs.load_pretrained(name)
        ours = APPROXIMATIONS[settings.approximation](exact)
        for task in settings.tasks:
            losses = [
                mean_loss(named(task), optimizer, settings.steps, keys)
                for optimizer in (exact, ours)
            ]
            ratios = losses[1] / losses[0]
            error = ratios.std(ddof=1) / np.sqrt(len(ratios))
            print(
                f"  {name} on {task}: mean loss {losses[1].mean():.4f} against "
                f"{losses[0].mean():.4f}, ratio {ratios.mean():.3f} +- {error:.3f}, "
                f"{ratios.min():.3f} to {ratios.max():.3f}",
                flush=True,
            )
        times = update_times({"exact": exact, "ours": ours}, 20)
        share = times["ours"] / times["exact"]
        print(f"  {name}: an update takes {share:.2f} of the time")


if __name__ == "__main__":
    main()
