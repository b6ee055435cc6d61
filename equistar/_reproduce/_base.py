"""What an experiment is, and what it gives."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import numpy as np


@dataclass
class Claim:
    """A statement of a paper, checked.

    **Attributes:**

    - `statement`: what the paper says.
    - `measured`: the numbers that were found.
    - `holds`: whether they bear it out.
    """

    statement: str
    measured: str
    holds: bool | np.bool


@dataclass
class Reproduction:
    """What an experiment gave.

    **Attributes:**

    - `data`: named arrays, everything that the figure shows.
    - `claims`: what was checked.
    - `draw`: draws the figure into a `matplotlib.figure.Figure`.
    """

    data: dict[str, np.ndarray]
    draw: Callable[[Any], None]
    claims: list[Claim] = field(default_factory=list)


class AbstractExperiment(eqx.Module):
    """An experiment: its settings are its fields, with the small size as their defaults."""

    @abc.abstractmethod
    def full(self) -> "AbstractExperiment":
        """The same experiment at the paper's size."""

    @abc.abstractmethod
    def run(self, say: Callable[[str], None]) -> Reproduction:
        """Runs it; tells `say` a line of progress now and then."""
