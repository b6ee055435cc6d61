"""Puts meta-trained optimizers into the package, and their evaluation beside them.

    equistar meta-train star-best --output runs/star-best      # and so on, see docs
    python benchmarks/pretrained.py runs                       # into the package
    equistar evaluate star star-best ... --suite offline --output evaluation
    python benchmarks/pretrained.py --evaluation evaluation    # into both

The weights file of a run says how it was made: its recipe must be one that has a name.
What is added are the hours that the run took, by the times of its files, and how the
optimizer does on every task. The report of the evaluation goes into the guide, without the
figures of held-out losses.
"""

import argparse
import json
import math
import pathlib
import re

import numpy as np
from PIL import Image

import equistar as eqs
from equistar._evaluation import load_evaluation
from equistar._evaluation._statistics import log_ratios
from equistar._recipes import NAMED_RECIPES


WEIGHTS = pathlib.Path(eqs.__file__).parent / "_weights"
GUIDE = pathlib.Path(__file__).parent.parent / "docs" / "pretrained"


def hours(run: pathlib.Path) -> float:
    """From the first file of the last start to the end of the run."""
    seconds = (run / "weights.npz").stat().st_mtime - (run / "recipe.json").stat().st_mtime
    return round(seconds / 3600, 2)


def command(settings: dict) -> str:
    """Of the named recipe that has these settings."""
    for name, entry in NAMED_RECIPES.items():
        if json.loads(json.dumps(entry.recipe.settings())) == settings:
            return f"equistar meta-train {name}"
    raise SystemExit("No named recipe makes this run: add it to equistar/_recipes.")


def finite(x: float) -> float | None:
    """For JSON, to four digits."""
    return float(f"{x:.4g}") if math.isfinite(x) else None


def evaluated(evaluation: eqs.Evaluation, name: str) -> dict:
    """Mean training loss of each task, and its ratio to tuned Adam's, as in the report."""
    about, runs = evaluation.about, evaluation.results.runs
    shortest = [r for r in runs if r.steps == about["steps"]]
    adam = {r.task: r for r in shortest if r.optimizer == evaluation.results.reference}
    rows = []
    for run in shortest:
        if run.optimizer == name:
            loss = float(np.median(run.mean))
            ratio = float(np.exp(np.median(log_ratios(run.mean, adam[run.task].mean))))
            rows.append(
                {
                    "task": run.task,
                    "mean_loss": finite(loss),
                    "ratio": finite(ratio),
                    "diverged": int(np.sum(run.diverged)),
                }
            )
    title = f"Medians of {about['seeds']} networks, {about['steps']} steps each"
    tasks = " ".join(row["task"] for row in rows)
    command = (
        f"equistar evaluate {name} --steps {about['steps']} --seeds {about['seeds']} "
        f"--horizons 1 --tasks {tasks}"
    )
    return {"title": title, "command": command, "tasks": rows}


def add_run(run: pathlib.Path) -> None:
    """Puts the weights of a run into the package."""
    provenance = eqs.load_header(run / "weights.npz")["provenance"]
    provenance.pop("versions")
    provenance["command"] = command(provenance["settings"])
    provenance["hours"] = hours(run)
    save(WEIGHTS / f"{run.name}.npz", eqs.load(run / "weights.npz"), provenance)


def add_evaluation(folder: pathlib.Path) -> None:
    """Puts an evaluation of what is in the package into its files, and into the guide."""
    evaluation = load_evaluation(folder)
    for name in eqs.PRETRAINED:
        provenance = dict(eqs.pretrained_provenance(name))
        provenance.pop("versions", None)
        provenance["evaluation"] = evaluated(evaluation, name)
        save(WEIGHTS / f"{name}.npz", eqs.load_pretrained(name), provenance)
    text = (folder / "report.md").read_text()
    held_out = re.compile(r"^!\[[^\n]*-held-out\.png\)\n\n?", re.MULTILINE)
    (GUIDE / "report.md").write_text(held_out.sub("", text))
    for figure in (folder / "figures").glob("*.png"):
        if not figure.stem.endswith("-held-out"):
            few_colours = Image.open(figure).convert("RGB").quantize(48)
            few_colours.save(GUIDE / "figures" / figure.name, optimize=True)


def save(target: pathlib.Path, optimizer: eqs.AbstractOptimizer, provenance: dict) -> None:
    """Writes a file of the package, and says so."""
    eqs.save(target, optimizer, provenance)
    print(f"{target}: {target.stat().st_size / 1024:.1f} kB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=pathlib.Path, nargs="?")
    parser.add_argument("--evaluation", type=pathlib.Path)
    arguments = parser.parse_args()
    for weights in sorted(arguments.runs.glob("*/weights.npz")) if arguments.runs else ():
        add_run(weights.parent)
    if arguments.evaluation:
        add_evaluation(arguments.evaluation)


if __name__ == "__main__":
    main()
