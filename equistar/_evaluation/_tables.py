"""Numbers as text, and tables of them."""

import math

import numpy as np
from rich.table import Table

from ._results import Results, Run, Summary
from ._statistics import quartiles


SUMMARY_HEADINGS = (
    "steps",
    "optimizer",
    "loss / reference",
    "better on",
    "diverged",
    "tuning",
)
TASK_HEADINGS = (
    "optimizer",
    "mean loss",
    "last 10 %",
    "held out",
    "ratio",
    "speed-up",
    "diverged",
    "µs/step",
    "MB",
)


def summary_rows(results: Results) -> list[tuple[str, ...]]:
    """One row for each horizon and optimizer, the best first."""
    rows = []
    for steps in results.horizons:
        found = {name: results.summary(name, steps) for name in results.optimizers}
        found = {name: s for name, s in found.items() if s.runs}
        order = sorted(found, key=lambda n: _worst_if_unknown(found[n].log_ratio))
        for name in order:
            s = found[name]
            better = (
                "reference" if name == results.reference else f"{s.better} of {s.tasks}"
            )
            cells = f"{steps:,}", name, ratio(s), better, f"{s.diverged} of {s.runs}"
            rows.append((*cells, tuning(results, name)))
    return rows


def task_rows(results: Results, task: str, steps: int) -> list[tuple[str, ...]]:
    """One row for each optimizer on a task, the lowest mean loss first."""
    runs = [r for r in results.runs if r.task == task and r.steps == steps]
    return [_row(results, r) for r in sorted(runs, key=lambda r: quartiles(r.mean)[1])]


def _row(results: Results, run: Run) -> tuple[str, ...]:
    ratios = results.log_ratio(run)
    memory = "?" if run.memory < 0 else f"{run.memory / 1e6:.3g}"
    return (
        run.optimizer,
        spread(run.mean),
        spread(run.final),
        spread(run.held_out_final),
        "—" if np.any(np.isnan(ratios)) else _shown(*np.exp(quartiles(ratios))),
        speed_up(results.speed_up(run)),
        f"{int(np.sum(run.diverged))} of {len(run.losses)}",
        f"{1e6 * run.seconds_per_step:.3g}",
        memory,
    )


def number(value: float) -> str:
    """A number as a table shows it."""
    if math.isnan(value):
        return "—"
    return f"{value:.4g}" if math.isfinite(value) else "∞"


def spread(values: np.ndarray) -> str:
    """The median, and the quartiles in brackets."""
    return _shown(*quartiles(values))


def _shown(low: float, middle: float, high: float) -> str:
    return f"{number(middle)} [{number(low)}, {number(high)}]"


def speed_up(values: np.ndarray) -> str:
    """The median speed-up, or that the target was not reached."""
    if np.any(np.isnan(values)):
        return "—"
    # Half of a speed-up that is there is none: as an infinite time.
    middle = quartiles(np.where(values > 0, values, -np.inf))[1]
    return f"{middle:.3g}" if middle > 0 else "not reached"


def ratio(summary: Summary) -> str:
    """The aggregated ratio with its interval."""
    if math.isnan(summary.log_ratio):
        return "—"
    low, middle, high = (
        math.exp(min(x, 700.0)) if math.isfinite(x) else x
        for x in (summary.low, summary.log_ratio, summary.high)
    )
    return _shown(low, middle, high)


def tuning(results: Results, optimizer: str) -> str:
    """How much tuning an optimizer had."""
    found = dict.fromkeys(r.tuning for r in results.runs if r.optimizer == optimizer)
    return "; ".join(found)


def summary_table(results: Results) -> Table:
    """Every optimizer over all tasks."""
    reference = results.reference or "no reference"
    tasks = len(results.tasks)
    title = f"{tasks} task{'s'[: tasks > 1]}; mean training loss relative to {reference}"
    table = Table(title=title)
    for heading in SUMMARY_HEADINGS:
        right = heading not in ("optimizer", "tuning")
        table.add_column(heading, justify="right" if right else "left")
    for row in summary_rows(results):
        table.add_row(*row)
    return table


def markdown(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    line = lambda cells: "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"
    rule = "|" + "|".join(" --- " for _ in headings) + "|"
    return "\n".join([line(headings), rule, *map(line, rows)])


def _worst_if_unknown(value: float) -> float:
    return math.inf if math.isnan(value) else value
