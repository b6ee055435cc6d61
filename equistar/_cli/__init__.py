"""The command line `equistar`: one module for each of its commands."""

import sys
from typing import Annotated

import tyro

from .._checkpoint_file import CheckpointError
from .._serialisation import WeightsError
from ._convert import Convert
from ._data import Data
from ._evaluate import Evaluate
from ._info import Info
from ._meta_train import MetaTrain
from ._output import CommandError
from ._quickstart import Quickstart
from ._reproduce import Reproduce
from ._stability import Stability
from ._train import Train


_DESCRIPTION = """Learned optimizers: meta-train one, save it, train networks with it.

Start with `equistar quickstart`: it does the whole of it on real data in minutes.
Every command explains itself: `equistar meta-train --help`."""

_Command = (
    Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
    | Annotated[MetaTrain, tyro.conf.subcommand("meta-train")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Info, tyro.conf.subcommand("info")]
    | Annotated[Convert, tyro.conf.subcommand("convert")]
    | Annotated[Stability, tyro.conf.subcommand("stability")]
    | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
    | Data
)


_EXPECTED = CommandError, WeightsError, CheckpointError, ValueError, FileNotFoundError


def main() -> None:
    """Runs a command. Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    command = tyro.cli(_Command, prog="equistar", description=_DESCRIPTION)  # pyright: ignore
    try:
        sys.exit(command.run())
    except _EXPECTED as e:
        print(f"equistar: {e}", file=sys.stderr)
        sys.exit(2 if isinstance(e, CommandError) else 1)
    except KeyboardInterrupt:
        print("equistar: interrupted.", file=sys.stderr)
        sys.exit(130)
