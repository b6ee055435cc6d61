"""Several processes that make one run."""

import contextlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import jax
from rich.console import Console

from ._output import CommandError


VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Seconds after which a process that is silent counts as dead, and to wait for one to come.
HEARTBEAT = 10
PATIENCE = 120
# A survivor has written what it can and stopped so many seconds after another one died.
STOPPED_WITHIN = 60


@dataclass
class Processes:
    """This process among those of the run."""

    index: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return self.index == 0


def one_process() -> Processes:
    """A run that is this process alone."""
    return Processes(0, 1)


def join_processes(console: Console) -> Processes:
    """Joins the run that the environment names.

    **Raises:**

    `CommandError` if the variables are not there, or make no sense.
    """
    settings = _settings(os.environ)
    console.print(
        f"Waiting up to {PATIENCE} s for the other processes of the run. If one does not "
        "come, this one is aborted: see that all run the same command and reach "
        f"{settings.get('coordinator_address', 'the coordinator')}."
    )
    try:
        jax.distributed.initialize(
            **settings,  # pyright: ignore
            initialization_timeout=PATIENCE,
            heartbeat_timeout_seconds=HEARTBEAT,
        )
    except (RuntimeError, ValueError) as e:
        raise CommandError(
            "The processes of the run did not find each other: set "
            f"{', '.join(VARIABLES)} alike, or start them by Slurm or MPI. JAX says: {e}"
        ) from e
    return Processes(jax.process_index(), jax.process_count())


def _settings(environment: Mapping[str, str]) -> dict[str, str | int]:
    given = [name for name in VARIABLES if environment.get(name)]
    # Without any, JAX itself knows Slurm, Open MPI, Kubernetes and cloud TPUs.
    if not given:
        return {}
    missing = [name for name in VARIABLES if name not in given]
    if missing:
        raise CommandError(
            f"--distributed needs {', '.join(VARIABLES)} in the environment; missing: "
            f"{', '.join(missing)}."
        )
    address, count, index = (environment[name] for name in VARIABLES)
    if not (count.isdigit() and index.isdigit() and int(index) < int(count)):
        raise CommandError(
            "JAX_PROCESS_ID must be one of 0, ..., JAX_NUM_PROCESSES - 1; got "
            f"{index} of {count}."
        )
    return {
        "coordinator_address": address,
        "num_processes": int(count),
        "process_id": int(index),
    }


def leave(code: int) -> None:
    """Ends this process at once.

    After the death of another one, an orderly end would wait for it for minutes.
    """
    for stream in (sys.stdout, sys.stderr):
        # Whoever read may have gone, or there is no such stream.
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.flush()
    os._exit(code)
