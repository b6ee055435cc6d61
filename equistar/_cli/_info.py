"""`equistar info`."""

import json
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from .._numerics import count_learned
from .._serialisation import load, load_header, PRETRAINED, weights_path, WeightsError
from ._output import console


@dataclass
class Info:
    """Say what a weights file holds: the optimizer, its parts, and how it was made.

    For the optimizers that come with the package also how well they train 22 tasks, of
    which only digits_mlp is one that they were meta-trained on (some others share its
    data, or that of other such tasks). Without a name it lists those optimizers.
    """

    weights: Annotated[pathlib.Path | None, tyro.conf.Positional] = None
    """The file that `equistar meta-train` or `equistar.save` wrote, or the name of a
    pretrained optimizer."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        out = console()
        if self.weights is None:
            _list_pretrained(out)
            return 0
        path = weights_path(self.weights)
        header = load_header(path)
        table = Table(title=str(self.weights), show_header=False)
        table.add_row("class", str(header.get("class")))
        try:
            optimizer = load(path)
            table.add_row("meta-learned numbers", str(count_learned(optimizer)))
        except WeightsError as e:
            table.add_row("not loadable here", str(e))
        table.add_row("size", f"{path.stat().st_size / 1024:.1f} kB")
        structure = header.get("structure")
        fields = structure.get("fields") if isinstance(structure, dict) else None
        for name, node in (fields if isinstance(fields, dict) else {}).items():
            if isinstance(node, dict) and "class" in node:
                table.add_row(name, str(node["class"]))
            elif isinstance(node, bool | int | float | str):
                table.add_row(name, _short(node))
        provenance = header.get("provenance")
        provenance = dict(provenance) if isinstance(provenance, dict) else {}
        # A user's own may be anything.
        rows: Any = provenance.get("evaluation")
        ours = isinstance(rows, dict) and rows.keys() >= {"title", "tasks", "command"}
        if ours:
            del provenance["evaluation"]
        for name, value in provenance.items():
            table.add_row(name.replace("_", " "), _text(name, value))
        out.print(table)
        if ours:
            out.print(_evaluation_table(rows))
            out.print(f"(from: {rows['command']})", highlight=False)
        return 0


def _list_pretrained(out: Console) -> None:
    table = Table(title="Pretrained optimizers, for equistar.load_pretrained(NAME)")
    for heading in ("name", "class", "made by"):
        table.add_column(heading, overflow="fold")
    for name in PRETRAINED:
        header = load_header(weights_path(name))
        table.add_row(name, header["class"], header["provenance"].get("command", ""))
    out.print(table)


def _text(name: str, value: Any) -> str:
    if name == "meta_training_curve" and isinstance(value, list):
        if all(x is None or isinstance(x, int | float) for x in value):
            return _sparkline(value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items())
    return _short(value)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return (value or "none") if isinstance(value, str) else json.dumps(value)


def _sparkline(values: Sequence[float | None]) -> str:
    """A curve in one line of text, with its first and last number."""
    known = [v for v in values if v is not None]
    if not known:
        return "not finite"
    low, high = min(known), max(known)
    bars = "▁▂▃▄▅▆▇█"
    level = lambda v: int((v - low) / (high - low or 1) * (len(bars) - 1))
    line = "".join("×" if v is None else bars[level(v)] for v in values)
    return f"{known[0]:.4g} {line} {known[-1]:.4g}"


def _evaluation_table(evaluation: dict[str, Any]) -> Table:
    """Mean training loss relative to tuned Adam's, by task."""
    table = Table(title=evaluation["title"])
    for heading in ("task", "loss / tuned Adam's", "mean loss", "diverged"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for row in evaluation["tasks"]:
        ratio, loss = row["ratio"], row["mean_loss"]
        number = lambda x: "not finite" if x is None else f"{x:.3g}"
        table.add_row(row["task"], number(ratio), number(loss), str(row["diverged"]))
    return table
