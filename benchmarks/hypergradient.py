"""What a step size that is learned in training is worth, before any meta-training.

    python benchmarks/hypergradient.py --cache SWEEPS

A fresh AdaptiveSTAR, that is AggMo on Adam's direction with a gain for each tensor, without
hypergradient descent and at several of its rates and thresholds, beside Adam tuned for each
task. Printed is the mean training loss over tuned Adam's, over all tasks and on each.
"""

import argparse
import pathlib

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import equistar as eqs


TASKS = (
    "digits_mlp digits_logistic digits_mlp_tanh wine_mlp breast_cancer_logistic "
    "diabetes_mlp linear_teacher quadratic rosenbrock digits_autoencoder "
    "digits_mlp_layer_norm digits_mlp_batch_norm digits_mlp_reparametrised "
    "digits_mlp_label_noise photograph_mlp digits_mlp_es digits_convnet"
).split()


def fresh(rate: float, threshold: float) -> eqs.AdaptiveSTAR:
    """A fresh optimizer; with the rate 0 its step sizes stay as they are."""
    optimizer = eqs.AdaptiveSTAR(key=jr.key(0))
    descent = lambda o: o.accumulators["log_step_size"].offsets
    initial = optimizer.accumulators["log_step_size"]
    if rate:
        ratios = rate / initial.rate, threshold / initial.threshold
        return eqx.tree_at(descent, optimizer, jnp.log(jnp.array(ratios)) / 10)
    weights = lambda o: o.gain.weights
    return eqx.tree_at(weights, optimizer, weights(optimizer).at[-1].set(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[0, 0.03, 0.2, 0.5])
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.02])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=pathlib.Path, help="sweeps of equistar evaluate")
    settings = parser.parse_args()
    optimizers = {
        f"rate {rate:g}, threshold {threshold:g}": fresh(rate, threshold)
        for rate in settings.rates
        for threshold in settings.thresholds
    }
    evaluation = eqs.evaluate(
        optimizers,
        settings.tasks,
        steps=settings.steps,
        seeds=settings.seeds,
        sweeps=eqs.FolderStore(settings.cache) if settings.cache else eqs.NoStore(),
        key=jr.key(0),
    )
    print(evaluation)
    runs = {(r.task, r.optimizer): float(np.mean(r.mean)) for r in evaluation.results.runs}
    reference = evaluation.results.reference
    for name in optimizers:
        print(f"\n{name}: loss / tuned Adam's")
        for task in settings.tasks:
            ratio = runs[task, name] / runs[task, reference]
            print(f"  {task:28s} {ratio:7.3g}")


if __name__ == "__main__":
    main()
