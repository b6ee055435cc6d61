"""Ctrl-C as a question that is answered when it is convenient."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


# Clusters ask a process to terminate some time before they kill it.
_USUAL = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


@dataclass
class Interrupts:
    """Whether Ctrl-C has been pressed, or the process was asked to terminate."""

    asked: bool = False
    to_terminate: bool = False


@contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """In it the first Ctrl-C, or request to terminate, is only noted.

    The second is a `KeyboardInterrupt`. At the end, a request to terminate is a
    `SystemExit`, so that the process ends. Only the main thread hears signals: in others
    nothing changes.
    """
    interrupts = Interrupts()

    def note(number: int, frame: Any) -> None:
        interrupts.to_terminate |= number == signal.SIGTERM
        if interrupts.asked:
            raise KeyboardInterrupt
        interrupts.asked = True
        print(
            "Interrupted: the meta-step that is running, which may still be compiling, is "
            "finished first. Press Ctrl-C again to stop at once.",
            file=sys.stderr,
        )

    main = threading.current_thread() is threading.main_thread()
    # Who has a handler of their own keeps it.
    heard = [s for s, h in _USUAL.items() if main and signal.getsignal(s) is h]
    for number in heard:
        signal.signal(number, note)
    try:
        yield interrupts
    finally:
        for number in heard:
            signal.signal(number, _USUAL[number])
    if interrupts.to_terminate:
        # The status that a shell gives to a process that a signal has ended.
        sys.exit(128 + signal.SIGTERM)
