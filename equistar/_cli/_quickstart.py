"""`equistar quickstart`."""

import pathlib
import shlex
import time
from dataclasses import dataclass
from typing import NamedTuple

import jax.random as jr
import numpy as np
import optax
from jaxtyping import PRNGKeyArray
from rich.console import Console

from .. import plot, tasks
from .._estimators import PES
from .._files import write_npz_atomically
from .._inner_training import adam_curves, InnerTraining, training_curves
from .._meta_training import (
    default_outer,
    meta_train,
    MetaTrainResult,
    Metrics,
    unstack_metrics,
)
from .._optimizers import STAR
from .._results import RESULTS
from .._serialisation import save
from .._unrolls import ConstantLength
from ._display import progress_logger
from ._output import check_seed, console, loss_table, output_folder, provenance
from ._run_files import JsonLines, metrics_row


ADAM_RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_WEIGHTS = "star.npz"


class _Size(NamedTuple):
    meta_steps: int
    length: int
    seeds: int


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
        started, out = time.monotonic(), console()
        theta_key, run_key, held_out = jr.split(jr.key(self.seed), 3)
        fresh = STAR(key=theta_key)
        with output_folder(self.output, self.overwrite) as folder:
            result = self._meta_train(fresh, folder, run_key, out)
            if result.result == RESULTS.interrupted:
                return self._interrupted(folder, out)
            self._compare(fresh, result.theta, folder, held_out, out)
        out.print(f"\nDone in {time.monotonic() - started:.0f} s. In {folder}/ are:")
        self._say_what_next(folder, out)
        return 0

    @property
    def _size(self) -> _Size:
        return _Size(20, 100, 2) if self.smoke else _Size(2000, 500, 8)

    def _meta_train(
        self, fresh: STAR, folder: pathlib.Path, key: PRNGKeyArray, out: Console
    ) -> MetaTrainResult:
        size = self._size
        out.print(
            f"1. Meta-training STAR on digits: {size.meta_steps} meta-steps of PES, 8 "
            f"pairs, window 50, episodes of {size.length} steps, outer weight decay 0.5."
        )
        with progress_logger(out, size.meta_steps, 8) as logger:
            result = meta_train(
                InnerTraining(tasks.digits_mlp()),
                PES(window=50, pairs=8, length=ConstantLength(size.length)),
                fresh,
                default_outer(_learning_rate(size.meta_steps), weight_decay=0.5),
                steps=size.meta_steps,
                key=key,
                logger=logger,
            )
        origin = provenance(vars(self), self.seed, result.history)
        save(folder / _WEIGHTS, result.theta, origin)
        _write_history(folder / "metrics.jsonl", result.history)
        return result

    def _interrupted(self, folder: pathlib.Path, out: Console) -> int:
        weights = folder / _WEIGHTS
        out.print(
            f"Interrupted; what was trained so far is in {weights}: `equistar train "
            f"{shlex.quote(str(weights))}`. With --overwrite the same command begins "
            "anew; runs of `equistar meta-train` go on."
        )
        return 130

    def _compare(
        self,
        fresh: STAR,
        trained: STAR,
        folder: pathlib.Path,
        key: PRNGKeyArray,
        out: Console,
    ) -> None:
        length, seeds, task = self._size.length, self._size.seeds, tasks.digits_mlp()
        out.print(
            f"2. Training {seeds} fresh networks from held-out seeds, {length} steps, "
            "with each optimizer."
        )
        training = {"steps": length, "keys": jr.split(key, seeds)}
        adams = np.asarray(adam_curves(task, ADAM_RATES, **training))
        curves = {
            "STAR, meta-trained": np.asarray(training_curves(task, trained, **training)),
            "STAR, untrained": np.asarray(training_curves(task, fresh, **training)),
            **{f"Adam {r:g}": a for r, a in zip(ADAM_RATES, adams, strict=True)},
        }
        out.print(loss_table(f"Training loss over {length} steps", list(curves.items())))
        star, best = curves["STAR, meta-trained"].mean(), min(a.mean() for a in adams)
        out.print(
            f"Meta-trained STAR: {star:.4f}, {abs(star / best - 1):.0%} "
            f"{'below' if star < best else 'above'} the best of the seven Adams "
            f"({best:.4f}), with no learning rate to tune."
        )
        write_npz_atomically(folder / "curves.npz", curves)
        figure = folder / "curves.png"
        plot.training_curves(figure, curves, title="digits, MLP 64-32-32-10")

    def _say_what_next(self, folder: pathlib.Path, out: Console) -> None:
        weights = folder / _WEIGHTS
        out.print("  star.npz       the meta-trained optimizer")
        out.print("  curves.png     the training curves (their data: curves.npz)")
        out.print("  metrics.jsonl  every meta-step")
        out.print("Next:")
        quoted = shlex.quote(str(weights))
        out.print(f"  equistar info {quoted}")
        out.print(f"  equistar train {quoted} --task digits_mlp_wide")
        out.print(f'  in Python: eqs.as_optax(eqs.load("{weights}")) in an optax chain')


# Without the rise, or at twice the rate, a run now and then loses its way.
def _learning_rate(meta_steps: int) -> optax.Schedule:
    rising = meta_steps // 5
    return optax.warmup_cosine_decay_schedule(0.0, 1e-3, rising, meta_steps, 1e-4)


def _write_history(path: pathlib.Path, history: Metrics) -> None:
    lines = JsonLines(path)
    each = enumerate(unstack_metrics(history), start=1)
    lines.restart(metrics_row(step, metrics) for step, metrics in each)
    lines.close()
