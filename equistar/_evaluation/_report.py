"""The Markdown report of an evaluation."""

import pathlib
from typing import Any

from .._files import write_atomically
from ._figures import draw_curves, draw_held_out, draw_summary
from ._results import Failure, Results
from ._store import file_name
from ._tables import (
    markdown,
    SUMMARY_HEADINGS,
    summary_rows,
    TASK_HEADINGS,
    task_rows,
)


def write_report(
    path: pathlib.Path,
    results: Results,
    failures: tuple[Failure, ...],
    notes: tuple[str, ...],
    about: dict[str, Any],
) -> None:
    """Writes the report, and its figures into `figures/` beside it."""
    figures = path.parent / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    parts = [_opening(results, about), *_summary(figures, results)]
    for task in results.tasks:
        parts += _task(figures, results, task)
    parts += [*_tuning(results), *_troubles(failures, notes), _explanation(results, about)]
    text = "\n\n".join(parts) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _opening(results: Results, about: dict[str, Any]) -> str:
    count = len(results.tasks)
    versions = ", ".join(f"{name} {v}" for name, v in about["versions"].items())
    return (
        f"# Evaluation on {count} task{'s'[: count > 1]}\n\n"
        f"Optimizers: {', '.join(results.optimizers) or 'none finished'}. Every number is "
        f"from {about['seeds']} seeds, the same for every optimizer: initial parameters "
        f"and minibatches are shared. Device: {about['device']}. Versions: {versions}."
    )


def _summary(figures: pathlib.Path, results: Results) -> list[str]:
    parts = ["## Summary", markdown(SUMMARY_HEADINGS, summary_rows(results))]
    if not results.reference:
        return [*parts, "Without tuned Adam there are no ratios and no speed-ups."]
    if not results.runs:
        return [*parts, "Nothing was finished."]
    draw_summary(figures / "summary.png", results)
    parts.append("![Ratios of the mean training loss](figures/summary.png)")
    parts.append(
        "A diamond is the aggregated ratio with its interval, a dot one task's median. "
        f"Left of 1 is better than {results.reference}."
    )
    return parts


def _task(figures: pathlib.Path, results: Results, task: str) -> list[str]:
    parts = [f"## {task}"]
    for steps in results.horizons:
        rows = task_rows(results, task, steps)
        if rows:
            name = f"{file_name(f'{task}-{steps}')}.png"
            held_out = f"{file_name(f'{task}-{steps}-held-out')}.png"
            draw_curves(figures / name, results, task, steps)
            draw_held_out(figures / held_out, results, task, steps)
            parts += [f"### {steps:,} steps", markdown(TASK_HEADINGS, rows)]
            parts.append(f"![Training loss on {task}](figures/{name})")
            parts.append(f"![Held-out loss on {task}](figures/{held_out})")
    return parts


def _tuning(results: Results) -> list[str]:
    rows = []
    for run in results.runs:
        if run.settings and run.steps == results.horizons[0]:
            values = ", ".join(f"{k} {v:.3g}" for k, v in run.settings.items())
            rows.append((run.optimizer, run.tuning, run.task, values))
    if not rows:
        return []
    return [
        "## What tuning chose",
        f"Settings are chosen at {results.horizons[0]:,} steps, by the mean training loss "
        "on the very seeds of this report, which favours the baselines; longer trainings "
        "use the same settings, schedules stretched to their length.",
        markdown(("baseline", "tuning budget", "task", "chosen"), sorted(rows)),
    ]


def _troubles(failures: tuple[Failure, ...], notes: tuple[str, ...]) -> list[str]:
    if not failures and not notes:
        return []
    together: dict[tuple[str, str], list[str]] = {}
    for f in failures:
        together.setdefault((f.task, f.message), []).append(f.optimizer)
    lines = [
        f"- On {task} failed {', '.join(names)}: {message}"
        for (task, message), names in together.items()
    ]
    return ["## What is missing", "\n".join([*lines, *(f"- {n}" for n in notes)])]


def _explanation(results: Results, about: dict[str, Any]) -> str:
    reference = results.reference or "the reference"
    return _HOW_TO_READ.format(reference=reference, split=about["held_out"])


_HOW_TO_READ = """## How to read this

- **mean loss, last 10 %**: of the training minibatches, each before its update; over all
  steps, and over the last tenth. Median over seeds, quartiles in brackets; ∞ where a seed
  met a loss that is not finite.
- **held out**: the mean of a few fixed minibatches of the split `{split}`, at the end.
- **ratio**: the mean loss over that of {reference}, from the same seed.
- **loss / reference**, in the summary: exp of the interquartile mean of
  ln(mean loss / mean loss of {reference}) over all pairs of a task and a seed, a quarter
  cut off each end; in brackets the 95 % interval of a bootstrap that draws tasks with
  replacement and, for each, seeds. Those tasks count that the optimizer finished and on
  which {reference} has a finite, positive mean loss. **better on**: tasks whose median
  ratio is below 1.
- **speed-up**: the steps over the first step by which the loss, averaged over the 2 % of
  the steps that end there (at least 10 steps, at most 10 %), is as low as the last-10 %
  loss of {reference}. That of {reference} itself shows how much of it is chance, or a
  plateau.
- **diverged**: a loss that is not finite, or a last tenth above the first loss.
- **µs/step**: of one seed, all seeds being trained in one program, compilation apart.
  **MB**: of that whole program.
- **tuning**: how many settings were tried on the task. What was meta-trained had none."""
