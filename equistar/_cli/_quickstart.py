"""`equistar quickstart`."""

import pathlib
import time
from dataclasses import dataclass

import jax.random as jr
import numpy as np
import optax

from .. import plot, tasks
from .._curves import adam_curves, training_curves
from .._episodes import ConstantLength
from .._estimators import PES
from .._files import write_npz_atomically
from .._inner_training import InnerTraining
from .._logger import Metrics, unstack_metrics
from .._meta_train import meta_train
from .._optimizers import STAR
from .._outer import default_outer
from .._results import RESULTS
from .._serialisation import save
from ._display import progress_logger
from ._output import check_seed, console, loss_table, new_folder, provenance
from ._run_files import JsonLines, metrics_row


ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)


@dataclass
class Quickstart:
    """The whole of it, on real data, in minutes: meta-train STAR and compare with Adam.

    Meta-trains STAR by PES on a small network on scikit-learn's digits, saves it, trains
    fresh networks from held-out seeds with it, with its untrained self and with Adam at
    seven learning rates; prints a table and draws the curves.
    """

    output: pathlib.Path = pathlib.Path("equistar-quickstart")
    """The folder to write into; made if it is not there."""
    overwrite: bool = False
    """Replace what is in the output folder."""
    seed: int = 0
    """Of the initial weights, the noise and the data."""
    smoke: bool = False
    """Run at a tiny size, only to see that everything works."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        check_seed(self.seed)
        started = time.monotonic()
        meta_steps, length, seeds = (20, 100, 2) if self.smoke else (2000, 500, 8)
        folder = new_folder(self.output, self.overwrite)
        out = console()
        task = tasks.digits_mlp()
        theta_key, run_key, held_out = jr.split(jr.key(self.seed), 3)
        fresh = STAR(key=theta_key)

        out.print(
            f"1. Meta-training STAR on digits: {meta_steps} meta-steps of PES, 8 pairs, "
            f"window 50, episodes of {length} steps, outer weight decay 0.5."
        )
        with progress_logger(out, meta_steps, 8) as logger:
            result = meta_train(
                InnerTraining(task),
                PES(window=50, pairs=8, length=ConstantLength(length)),
                fresh,
                default_outer(_learning_rate(meta_steps), weight_decay=0.5),
                steps=meta_steps,
                key=run_key,
                logger=logger,
            )
        weights = folder / "star.npz"
        save(weights, result.theta, provenance(vars(self), self.seed, result.history))
        _write_history(folder / "metrics.jsonl", result.history)
        if result.result == RESULTS.interrupted:
            out.print(
                f"Interrupted; what was trained so far is in {weights}: `equistar train "
                f"{weights}`. With --overwrite the same command begins anew; runs of "
                "`equistar meta-train` go on."
            )
            return 130

        out.print(
            f"2. Training {seeds} fresh networks from held-out seeds, {length} steps, "
            "with each optimizer."
        )
        keys = jr.split(held_out, seeds)
        run = lambda optimizer: np.asarray(
            training_curves(task, optimizer, steps=length, keys=keys)
        )
        adams = np.asarray(adam_curves(task, ADAM_RATES, steps=length, keys=keys))
        rows = [
            ("STAR, meta-trained", run(result.theta)),
            ("STAR, untrained", run(fresh)),
        ]
        rows += [(f"Adam {rate:g}", a) for rate, a in zip(ADAM_RATES, adams, strict=True)]
        out.print(loss_table(f"Training loss over {length} steps", rows))
        star, best = rows[0][1].mean(), min(a.mean() for a in adams)
        out.print(
            f"Meta-trained STAR: {star:.4f}, {abs(star / best - 1):.0%} "
            f"{'below' if star < best else 'above'} the best of the seven Adams "
            f"({best:.4f}), with no learning rate to tune."
        )
        write_npz_atomically(folder / "curves.npz", dict(rows))
        figure = folder / "curves.png"
        plot.training_curves(figure, dict(rows), title="digits, MLP 64-32-32-10")

        out.print(f"\nDone in {time.monotonic() - started:.0f} s. In {folder}/ are:")
        out.print("  star.npz       the meta-trained optimizer")
        out.print("  curves.png     the training curves (their data: curves.npz)")
        out.print("  metrics.jsonl  every meta-step")
        out.print("Next:")
        out.print(f"  equistar info {weights}")
        out.print(f"  equistar train {weights} --task digits_mlp_wide")
        out.print(f'  in Python: eqs.as_optax(eqs.load("{weights}")) in an optax chain')
        return 0


# Without the rise a run now and then loses its way in the first few hundred meta-steps.
def _learning_rate(meta_steps: int) -> optax.Schedule:
    rising = meta_steps // 5
    return optax.warmup_cosine_decay_schedule(0.0, 2e-3, rising, meta_steps, 1e-4)


def _write_history(path: pathlib.Path, history: Metrics) -> None:
    lines = JsonLines(path)
    each = enumerate(unstack_metrics(history), start=1)
    lines.restart(metrics_row(step, metrics) for step, metrics in each)
    lines.close()
