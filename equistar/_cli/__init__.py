"""The command line `equistar`: one module for each of its commands."""

import contextlib
import gc
import importlib.metadata
import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import jax
import tyro

from .._files import where_to_write
from .._meta_training import CheckpointError
from .._serialisation import WeightsError
from ._convert import Convert
from ._data import Data
from ._evaluate import Evaluate
from ._info import Info
from ._meta_train import MetaTrain
from ._output import CommandError, hush
from ._plot import Plot
from ._processes import leave
from ._quickstart import Quickstart
from ._recipe_choice import check_choice, chosen_recipe
from ._reproduce import Reproduce
from ._stability import Stability
from ._train import Train


_DESCRIPTION = """Learned optimizers: meta-train one, save it, train networks with it.

Start with `equistar quickstart`: it does the whole of it on real data in minutes.
Every command explains itself: `equistar meta-train --help`. `equistar --version` says
which version this is."""

_EXPECTED = CommandError, WeightsError, CheckpointError, ValueError, OSError
_TOO_LARGE = MemoryError, OverflowError, jax.errors.JaxRuntimeError
_OF_SIZE = "memory", "RESOURCE_EXHAUSTED"


def command() -> None:
    """Runs a command as the whole of a process."""
    # Tracing makes many small objects that live on: looking through all of them again and
    # again takes up to a tenth of its time.
    gc.set_threshold(200_000, 20, 100)
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        main()
    except SystemExit as e:
        # XLA's threads go on after an interrupt, and crash in an orderly end. Processes of
        # one run have to end it in order, for each other.
        if e.code == 130 and not jax.distributed.is_initialized():
            leave(130)
        raise


# A command ends in its own words. Where Ctrl-C is not heard, as in background jobs of a
# shell, this is.
def _as_ctrl_c(number: int, frame: Any) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


def main() -> None:
    """Runs a command. Exit codes: 0 done, 1 failed, 2 wrong arguments, 130 interrupted."""
    if sys.argv[1:] == ["--version"]:
        print(f"equistar {importlib.metadata.version('equistar')}")
        sys.exit(0)
    for stream in (sys.stdout, sys.stderr):
        # A terminal of few letters loses some, and not the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        with _plain_warnings():
            code = _parse([_at_home(x) for x in sys.argv[1:]]).run()
            if sys.stdout is not None:
                sys.stdout.flush()
            sys.exit(code)
    except BrokenPipeError:
        # Whoever read has gone, as `head` does.
        hush()
        sys.exit(1)
    except _EXPECTED as e:
        print(f"equistar: {_sentence(e)}", file=sys.stderr)
        sys.exit(2 if isinstance(e, CommandError) else 1)
    except _TOO_LARGE as e:
        of_jax = isinstance(e, jax.errors.JaxRuntimeError)
        if of_jax and not any(word in str(e) for word in _OF_SIZE):
            raise
        print(f"equistar: {_too_large(e)}", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as e:
        if "Unable to initialize backend" not in str(e):
            raise
        print(f"equistar: {e}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("equistar: interrupted.", file=sys.stderr)
        sys.exit(130)


# A shell does not do it in `--output=~/run`, nor in quotes.
def _at_home(argument: str) -> str:
    option, equals, path = argument.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={_at_home(path)}"
    is_path = argument == "~" or argument.startswith(("~/", f"~{os.sep}"))
    return os.path.expanduser(argument) if is_path else argument


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        place = f" at {error.filename}" if error.filename else ""
        return f"The system says: {error.strerror}{place}. {where_to_write(error)}"
    return str(error)


def _too_large(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return f"{first:.200}. If a number is too large for this machine, give a smaller one."


def _parse(arguments: Sequence[str]) -> Any:
    training = arguments[:1] == ["meta-train"]
    # The flags of a meta-training change a recipe, whose values `--help` shows.
    recipe = chosen_recipe(arguments[1:] if training else [])
    commands = (
        Annotated[Quickstart, tyro.conf.subcommand("quickstart")]
        | Annotated[
            tyro.conf.OmitArgPrefixes[tyro.conf.FlagCreatePairsOff[MetaTrain]],
            tyro.conf.subcommand("meta-train", default=MetaTrain(recipe=recipe)),
        ]
        | Annotated[Plot, tyro.conf.subcommand("plot")]
        | Annotated[Train, tyro.conf.subcommand("train")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
        | Annotated[Stability, tyro.conf.subcommand("stability")]
        | Annotated[Reproduce, tyro.conf.subcommand("reproduce")]
        | Data
    )
    command: Any = tyro.cli(
        commands,  # pyright: ignore
        prog="equistar",
        description=_DESCRIPTION,
        args=arguments,
    )
    if training:
        check_choice(arguments[1:], command.name)
    return command


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings as one line, without the place in the source."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
            if category is UserWarning:
                print(f"equistar: {message}", file=sys.stderr)
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield
