"""`equistar data`."""

import pathlib
import socket
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.table import Table

from .. import tasks
from ..tasks._tfds import data_folder, prepared_folder
from ._output import CommandError, console


@dataclass
class ListData:
    """Show which image data sets are prepared on this machine, and how large they are."""

    data_dir: pathlib.Path | None = None
    """Where they are; by default $TFDS_DATA_DIR, or else ~/tensorflow_datasets."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        table = Table(title=f"Data sets in {data_folder(self.data_dir)}")
        for heading in ("name", "images", "classes", "prepared"):
            table.add_column(heading)
        table.add_column("MB", justify="right")
        for name, source in tasks.IMAGES.items():
            folder = prepared_folder(name, self.data_dir)
            shape = "x".join(map(str, source.shape))
            known = name, shape, str(source.classes)
            if folder is None:
                table.add_row(*known, "no", "")
            else:
                size = sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
                table.add_row(*known, f"version {folder.name}", f"{size / 1e6:.1f}")
        console().print(table)
        return 0


@dataclass
class PrepareData:
    """Download an image data set and prepare it for reading without TensorFlow.

    This needs TensorFlow, about 1.8 GB: pip install 'equistar[prepare]'. Where there is no
    network, put the raw files that TensorFlow Datasets would download into --manual-dir.
    """

    name: Annotated[str, tyro.conf.Positional]
    """Say fashion_mnist; `equistar data list` shows the names."""
    data_dir: pathlib.Path | None = None
    """Where to put it; by default $TFDS_DATA_DIR, or else ~/tensorflow_datasets."""
    manual_dir: pathlib.Path | None = None
    """A folder of raw files that are already here; nothing is downloaded then."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        out = console()
        if self.name not in tasks.IMAGES:
            raise CommandError(
                f"There is no data set '{self.name}': choose one of {sorted(tasks.IMAGES)}."
            )
        there = prepared_folder(self.name, self.data_dir)
        if there is not None:
            out.print(f"{self.name} is prepared already, in {there}.")
            return 0
        folder = data_folder(self.data_dir)
        prepare(self.name, folder, self.manual_dir)
        out.print(f"{self.name} is prepared in {prepared_folder(self.name, folder)}.")
        return 0


def prepare(name: str, folder: pathlib.Path, manual: pathlib.Path | None) -> None:
    """Prepares a data set with TensorFlow's builder of it."""
    try:
        import tensorflow  # noqa: F401  # pyright: ignore
    except ImportError as e:
        raise CommandError(
            f"Preparing '{name}' needs TensorFlow (reading it does not): run "
            "pip install 'equistar[prepare]' and try again."
        ) from e
    import tensorflow_datasets as tfds

    if manual is not None and not manual.is_dir():
        raise CommandError(f"There is no folder {manual}: give --manual-dir another.")
    if manual is None and not _online():
        raise CommandError(
            f"There is no network, and '{name}' must be downloaded: prepare it on another "
            f"machine and copy {folder / name} here, or put its raw files into a folder "
            "and pass that by --manual-dir."
        )
    config = tfds.download.DownloadConfig(manual_dir=manual)
    builder = tfds.builder(name, data_dir=folder, file_format="array_record")
    builder.download_and_prepare(download_config=config)


# Without this, downloads are tried again for minutes.
def _online() -> bool:
    try:
        socket.create_connection(("storage.googleapis.com", 443), timeout=5).close()
    except OSError:
        return False
    return True


Data = Annotated[
    Annotated[ListData, tyro.conf.subcommand("list")]
    | Annotated[PrepareData, tyro.conf.subcommand("prepare")],
    tyro.conf.subcommand("data", description="Image data sets: which are here, and more."),
]
"""The commands about data sets."""
