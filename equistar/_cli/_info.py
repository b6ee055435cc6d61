"""`equistar info`."""

import json
import pathlib
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.table import Table

from .._numerics import count_learned
from .._serialisation import load, load_header, WeightsError
from ._output import console


@dataclass
class Info:
    """Say what a weights file holds: the optimizer, its parts, and how it was made."""

    weights: Annotated[pathlib.Path, tyro.conf.Positional]
    """The file that `equistar meta-train` or `equistar.save` wrote."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        header = load_header(self.weights)
        table = Table(title=str(self.weights), show_header=False)
        table.add_row("class", str(header.get("class")))
        try:
            optimizer = load(self.weights)
            table.add_row("meta-learned numbers", str(count_learned(optimizer)))
        except WeightsError as e:
            table.add_row("not loadable here", str(e))
        fields = header.get("structure", {}).get("fields", {})
        for name, node in fields.items():
            if isinstance(node, dict) and "class" in node:
                table.add_row(name, node["class"])
        for name, value in header.get("provenance", {}).items():
            text = value if isinstance(value, str) else json.dumps(value, indent=1)
            table.add_row(name, text)
        console().print(table)
        return 0
