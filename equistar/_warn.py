"""Warnings that point to the line of whoever called the library."""

import sys
import types
import warnings


# Between a user's call and a warning: methods of modules are wrapped.
_BETWEEN = "equistar", "equinox", "jaxtyping", "contextlib"


def warn(message: str) -> None:
    """Warns of something, at the line outside of this library that led to it."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_between(frame):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _is_between(frame: types.FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN
