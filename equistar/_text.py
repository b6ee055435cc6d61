"""Tables as plain text."""

from rich.console import Console
from rich.table import Table


def as_text(table: Table, width: int = 120) -> str:
    """What `print` shows, in a terminal, a file or a notebook."""
    console = Console(width=width, force_jupyter=False, force_terminal=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
