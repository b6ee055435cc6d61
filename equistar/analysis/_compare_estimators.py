"""Meta-gradient estimators beside each other: bias, variance, cost, memory."""

import os
import time
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree
from rich.table import Table

from .._estimators import AbstractEstimator
from .._kinds import as_count, check_kind
from .._text import as_text
from .._unrolls import AbstractUnroll, check_is_unroll
from ..plot import save_figure
from ._references import AbstractReference, run_many, windows_of


class EstimatorReport(eqx.Module):
    """What [`equistar.analysis.compare_estimators`][] found of one estimator.

    A run is a mean over as many windows as make `steps` steps of the unroll.

    **Attributes:**

    - `mean`: of the runs' gradients, ravelled.
    - `bias`: Euclidean norm of the mean's difference from the reference.
    - `bias_error`: its standard error, the reference's included.
    - `bias_score`: the largest difference in any one number, in its standard errors.
    - `variance`: the trace of the covariance of a run's gradient.
    - `seconds`: median time of one run, its warm-up windows not counted.
    - `cost`: `seconds * variance`: seconds for a mean of unit variance.
    - `memory`: bytes of scratch memory of the compiled run, in addition to arguments and
        results; `None` if the backend does not report it.
    - `compile_seconds`: the time to trace and compile the run.
    """

    mean: np.ndarray
    bias: float
    bias_error: float
    bias_score: float
    variance: float
    seconds: float
    cost: float
    memory: int | None
    compile_seconds: float


class EstimatorComparison(eqx.Module):
    """What [`equistar.analysis.compare_estimators`][] returns; `print` shows a table.

    **Attributes:**

    - `reports`: an [`equistar.analysis.EstimatorReport`][] for each estimator.
    - `reference`: the gradient that they were compared with, ravelled.
    """

    reports: dict[str, EstimatorReport]
    reference: np.ndarray

    def table(self) -> Table:
        """As a table for a `rich.console.Console`."""
        norm = np.linalg.norm(self.reference)
        table = Table(title=f"Meta-gradient estimators; the reference's norm is {norm:.4g}")
        table.add_column("estimator")
        headings = ("bias", "± s.e.", "worst/s.e.", "variance", "s/run", "s x var", "MB")
        for heading in (*headings, "compile s"):
            table.add_column(heading, justify="right")
        for name, r in self.reports.items():
            numbers = r.bias, r.bias_error, r.bias_score, r.variance, r.seconds, r.cost
            memory = "?" if r.memory is None else f"{r.memory / 1e6:.3g}"
            cells = [f"{x:.3g}" for x in numbers]
            table.add_row(name, *cells, memory, f"{r.compile_seconds:.3g}")
        return table

    def __str__(self) -> str:
        return as_text(self.table(), width=110)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draws bias, variance and cost as a PNG file."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 3.6), layout="constrained")
        names = list(self.reports)
        reports = list(self.reports.values())
        panels = {
            "bias, ± 2 standard errors": [r.bias for r in reports],
            "variance of a run": [r.variance for r in reports],
            "seconds for unit variance": [r.cost for r in reports],
        }
        for i, (title, values) in enumerate(panels.items(), start=1):
            axes = figure.add_subplot(1, len(panels), i)
            errors = [2 * r.bias_error for r in reports] if i == 1 else None
            axes.barh(names, values, xerr=errors, color=f"C{i - 1}", alpha=0.8)
            axes.set_xscale("linear" if i == 1 else "log")
            axes.set_title(title)
            axes.invert_yaxis()
            if i > 1:
                axes.set_yticklabels([])
        save_figure(figure, path)


def compare_estimators(
    unroll: AbstractUnroll,
    estimators: Mapping[str, AbstractEstimator],
    theta: PyTree,
    *,
    reference: AbstractReference,
    steps: int,
    runs: int = 64,
    repetitions: int = 3,
    key: PRNGKeyArray,
) -> EstimatorComparison:
    """Measures bias, variance, cost and memory of estimators at a fixed `theta`.

    Each estimator makes `runs` independent runs. A run is the mean of as many estimates as
    make `steps` steps, after a warm-up ([`equistar.AbstractEstimator`][]'s `warm_up`). With
    `LockStep()`, choose `steps` as a multiple of the episode's length.

    !!! Example

        ```python
        comparison = eqs.analysis.compare_estimators(
            unroll,
            {"PES": eqs.PES(10, 8, length=length), "NRES": eqs.NRES(10, 8, length=length)},
            theta,
            reference=eqs.analysis.LongRun(eqs.FullES(length, 64)),
            steps=1000,
            key=jr.key(0),
        )
        print(comparison)
        comparison.plot("estimators.png")
        ```

    **Arguments:**

    - `unroll`: what to differentiate.
    - `estimators`: by name.
    - `theta`: the meta-parameters.
    - `reference`: [`equistar.analysis.ExactGradient`][] or
        [`equistar.analysis.LongRun`][].
    - `steps`: steps of the unroll in a run.
    - `runs`: independent runs of each estimator, at least 2.
    - `repetitions`: how often a run is timed.
    - `key`: a PRNG key.

    **Returns:**

    An [`equistar.analysis.EstimatorComparison`][].

    **Raises:**

    `ValueError` if an argument is not of its kind, or if there are no estimators, or too
    few runs or steps.
    """
    check_is_unroll(unroll)
    wanted = "a dictionary of estimators by name, say `{'PES': PES()}`"
    check_kind(estimators, Mapping, "`estimators`", wanted)
    for name, estimator in estimators.items():
        check_kind(estimator, AbstractEstimator, f"The estimator '{name}'")
    check_kind(reference, AbstractReference, "`reference`")
    if not estimators:
        raise ValueError(f"A comparison needs an estimator; `estimators` must be {wanted}.")
    steps, runs = as_count(steps, "steps"), as_count(runs, "runs", least=2)
    repetitions = as_count(repetitions, "repetitions")
    reference_key, key = jr.split(key)
    exact = reference.gradient(unroll, theta, steps, key=reference_key)
    reports = {
        name: _report(unroll, estimator, theta, exact, steps, runs, repetitions, key)
        for name, estimator in estimators.items()
    }
    return EstimatorComparison(reports, exact[0])


def _report(
    unroll: AbstractUnroll,
    estimator: AbstractEstimator,
    theta: PyTree,
    exact: tuple[np.ndarray, np.ndarray],
    steps: int,
    runs: int,
    repetitions: int,
    key: PRNGKeyArray,
) -> EstimatorReport:
    windows, skipped = windows_of(estimator, steps)
    counted = windows / (windows + skipped)
    keys = jr.split(key, runs)
    arguments = unroll, estimator, theta, keys, windows, skipped
    started = time.perf_counter()
    compiled = run_many.lower(*arguments).compile()  # pyright: ignore
    compile_seconds = time.perf_counter() - started
    samples = np.asarray(compiled(*arguments), np.float64)
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(counted * (time.perf_counter() - started) / runs)
    mean, spread = samples.mean(0), samples.std(0, ddof=1)
    errors = np.sqrt(spread**2 / runs + exact[1] ** 2)
    difference = mean - exact[0]
    # A number that is exact in every run has no error: only its rounding is left.
    floor = 1e-6 * np.abs(exact[0]).max() + np.finfo(np.float32).tiny
    variance, median = float((spread**2).sum()), float(np.median(seconds))
    return EstimatorReport(
        mean=mean,
        bias=float(np.linalg.norm(difference)),
        bias_error=float(np.linalg.norm(errors)),
        bias_score=float(np.max(np.abs(difference) / np.maximum(errors, floor))),
        variance=variance,
        seconds=median,
        cost=median * variance,
        memory=_scratch(compiled),
        compile_seconds=compile_seconds,
    )


def _scratch(compiled: Any) -> int | None:
    analysis = compiled.compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)
