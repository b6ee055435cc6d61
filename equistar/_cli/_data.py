"""`equistar data`."""

import pathlib
import socket
from dataclasses import dataclass
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from .. import tasks
from .._names import suggest
from ..tasks._preparation import (
    BYTES,
    data_folder,
    is_tokenised,
    LM1B,
    PREPARED,
    prepared_folder,
    token_folder,
    tokenise,
)
from ._output import CommandError, console


# Of words, in the vocabulary of lm1b that is made where none is chosen.
_PIECES = 32_000


@dataclass
class ListData:
    """Show which data sets are prepared on this machine, and how large they are."""

    data_dir: pathlib.Path | None = None
    """Where they are; by default $TFDS_DATA_DIR, or else ~/tensorflow_datasets."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        table = Table(title=f"Data sets in {data_folder(self.data_dir)}")
        for heading in ("name", "examples", "classes", "prepared"):
            table.add_column(heading)
        table.add_column("MB", justify="right")
        for name, source in tasks.IMAGES.items():
            shape = "x".join(map(str, source.shape))
            known = name, shape, str(source.classes)
            table.add_row(*known, *_status(prepared_folder(name, self.data_dir), "version"))
        folder = prepared_folder(LM1B, self.data_dir)
        table.add_row(LM1B, "sentences", "", *_status(folder, "version"))
        for vocabulary in (_PIECES, BYTES, *self._other_vocabularies()):
            folder = token_folder(vocabulary, self.data_dir)
            there = folder if is_tokenised(folder) else None
            known = f"{LM1B}, tokens", "text", str(vocabulary)
            table.add_row(*known, *_status(there, "vocabulary"))
        console().print(table)
        return 0

    def _other_vocabularies(self) -> list[int]:
        folders = token_folder(BYTES, self.data_dir).parent.glob("*")
        found = {int(f.name) for f in folders if f.name.isdigit()}
        return sorted(found - {_PIECES, BYTES})


@dataclass
class ListTasks:
    """Show the tasks with a name, and the suites that they are in."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        table = Table(title="Tasks")
        for heading in ("task", "data", "suites"):
            table.add_column(heading)
        for name in tasks.NAMED:
            suites = [suite for suite, names in tasks.SUITES.items() if name in names]
            data = "to prepare" if name in PREPARED else "in every install"
            table.add_row(name, data, ", ".join(suites))
        console().print(table)
        return 0


def _status(folder: pathlib.Path | None, what: str) -> tuple[str, str]:
    if folder is None:
        return "no", ""
    size = sum(p.stat().st_size for p in folder.iterdir() if p.is_file())
    return f"{what} {folder.name}", f"{size / 1e6:.1f}"


@dataclass
class PrepareData:
    """Download a data set and prepare it for reading without TensorFlow.

    This needs TensorFlow, about 1.8 GB: pip install 'equistar[prepare]'. Where there is no
    network, put the raw files that TensorFlow Datasets would download into --manual-dir.

    Of lm1b (4 GB of text) the tokens are made too: pieces of words, learned from its first
    million sentences, or bytes. Again with another --vocabulary, only that is done.
    """

    name: Annotated[str, tyro.conf.Positional]
    """Say fashion_mnist; `equistar data list` shows the names."""
    data_dir: pathlib.Path | None = None
    """Where to put it; by default $TFDS_DATA_DIR, or else ~/tensorflow_datasets."""
    manual_dir: pathlib.Path | None = None
    """A folder of raw files that are already here; nothing is downloaded then."""
    vocabulary: int | None = None
    """Of lm1b: how many pieces of words, 32000 if not said; 256 takes bytes."""
    vocabulary_file: pathlib.Path | None = None
    """Of lm1b: a SentencePiece model of so many pieces, in place of a new one."""

    def run(self) -> int:
        """Runs the command and returns the exit code."""
        out = console()
        known = [*tasks.IMAGES, LM1B]
        if self.name not in known:
            raise CommandError(
                f"There is no data set '{self.name}': {suggest(self.name, sorted(known))}."
            )
        of_words = (self.vocabulary, self.vocabulary_file) != (None, None)
        if self.name != LM1B and of_words:
            raise CommandError(
                f"'{self.name}' has no words: leave out --vocabulary and --vocabulary-file."
            )
        if self.vocabulary is not None and self.vocabulary < BYTES:
            raise CommandError(f"--vocabulary must be at least {BYTES}, which is bytes.")
        if self.vocabulary_file is not None and not self.vocabulary_file.is_file():
            raise CommandError(f"There is no file {self.vocabulary_file}.")
        there = prepared_folder(self.name, self.data_dir)
        if there is None:
            folder = data_folder(self.data_dir)
            prepare(self.name, folder, self.manual_dir)
            out.print(f"{self.name} is prepared in {prepared_folder(self.name, folder)}.")
        else:
            out.print(
                f"{self.name} is prepared already, in {there}: delete that folder to "
                "prepare it anew."
            )
        if self.name == LM1B:
            self._tokens(out)
        return 0

    def _tokens(self, out: Console) -> None:
        vocabulary = _PIECES if self.vocabulary is None else self.vocabulary
        folder = token_folder(vocabulary, self.data_dir)
        if is_tokenised(folder):
            out.print(f"Its tokens are made already, in {folder}.")
            return
        tokenise(vocabulary, self.data_dir, self.vocabulary_file, out.print)
        out.print(f"Its tokens are in {folder}.")


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
    | Annotated[ListTasks, tyro.conf.subcommand("tasks")]
    | Annotated[PrepareData, tyro.conf.subcommand("prepare")],
    tyro.conf.subcommand("data", description="Data sets and tasks: which there are."),
]
"""The commands about data sets."""
