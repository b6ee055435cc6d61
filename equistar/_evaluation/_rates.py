"""The learning rates that a sweep tries, and what goes with them."""

import math
from typing import Any

from .._kinds import as_number


# Half orders of magnitude, 1e-6 .. 1.
HALF_ORDERS = tuple(float(f"{10 ** (k / 2):.4g}") for k in range(-12, 1))


def check_rates(rates: Any) -> None:
    """Raises a `ValueError` unless these are learning rates to choose from."""
    is_rate = lambda x: isinstance(x, int | float) and 0 < x < math.inf
    if not isinstance(rates, tuple) or not rates or not all(map(is_rate, rates)):
        raise ValueError(
            "`rates` must be a tuple of positive, finite learning rates, say (1e-3, 1e-2); "
            f"got {rates!r:.80}."
        )


def as_momentum(value: Any) -> float:
    """A number of Python's; raises a `ValueError` for what is none."""
    return as_number(value, "`momentum`", "0.9")
