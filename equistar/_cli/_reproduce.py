"""`equistar reproduce`."""

import pathlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from .._files import write_npz_atomically
from .._names import suggest
from .._reproduce import AbstractExperiment, Claim, EXPERIMENTS
from ..plot import save_figure
from ._output import CommandError, console, output_folder


@dataclass
class Reproduce:
    """Run an experiment of a paper again, and check what the paper says of it.

    Writes NAME.png and NAME.npz (all that claims and figure are made from) into the output
    folder, and prints each claim with the numbers that were found. Without a name it
    lists the experiments. Exit code 1 says that a claim did not hold.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
    """The experiment."""
    full: bool = False
    """The paper's size; the default is a smaller one."""
    output: pathlib.Path = pathlib.Path("equistar-reproduce")
    """The folder to write into, one for many experiments; made if it is not there."""
    overwrite: bool = False
    """Replace the experiment's files in the output folder."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        out = console()
        if self.name is None:
            return _list_experiments(out)
        experiment = self._experiment(self.name)
        figure = _empty_figure()
        started = time.monotonic()
        files = [f"{self.name}.npz", f"{self.name}.png"]
        with output_folder(self.output, self.overwrite, files) as folder:
            data = experiment.measure(out.print)
            try:
                # Before all else: nothing that comes after may lose it.
                write_npz_atomically(folder / f"{self.name}.npz", data)
                experiment.draw(figure, data)
                save_figure(figure, folder / f"{self.name}.png")
            finally:
                # Where files have no room, what was found is said all the same.
                claims = experiment.claims(data)
                out.print(_table(self.name, claims))
        out.print(f"Done in {time.monotonic() - started:.0f} s.")
        out.print(f"Figure: {folder / self.name}.png and its data {self.name}.npz")
        return 0 if all(claim.holds for claim in claims) else 1

    def _experiment(self, name: str) -> AbstractExperiment:
        if name not in EXPERIMENTS:
            raise CommandError(
                f"There is no experiment '{name}': {suggest(name, EXPERIMENTS)}."
            )
        return EXPERIMENTS[name].full() if self.full else EXPERIMENTS[name]


def _list_experiments(out: Console) -> int:
    out.print("Experiments:")
    for name, experiment in EXPERIMENTS.items():
        summary = (type(experiment).__doc__ or "").strip().splitlines()[0]
        out.print(f"  {name}: {summary}")
    return 0


def _empty_figure() -> Any:
    """Made before the experiment is run, so that a matplotlib that fails does so first."""
    # Imported late: it is slow, and only this line needs it.
    from matplotlib.figure import Figure

    return Figure(figsize=(9, 4.5), layout="constrained")


def _table(name: str, claims: Iterable[Claim]) -> Table:
    table = Table(title=f"{name}: what the paper says, and what was found")
    for heading in ("holds", "claim", "measured"):
        table.add_column(heading, overflow="fold")
    for claim in claims:
        table.add_row("yes" if claim.holds else "NO", claim.statement, claim.measured)
    return table
