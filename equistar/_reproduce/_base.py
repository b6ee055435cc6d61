"""What an experiment is: what it measures, what it claims, and how it is drawn."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import numpy as np

from .._meta_training import MetaTrainResult
from .._results import RESULTS


def uninterrupted(result: MetaTrainResult) -> MetaTrainResult:
    """A run as it is, unless Ctrl-C or a signal ended it: then that ends all."""
    if result.result == RESULTS.interrupted:
        raise KeyboardInterrupt
    return result


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


class AbstractExperiment(eqx.Module):
    """An experiment: its settings are its fields, with the small size as their defaults.

    Claims and figure are functions of what was measured alone, which is what is saved: from
    the file they can be made again.
    """

    @abc.abstractmethod
    def full(self) -> "AbstractExperiment":
        """The same experiment at the paper's size."""

    @abc.abstractmethod
    def measure(self, say: Callable[[str], None]) -> dict[str, np.ndarray]:
        """Runs it; tells `say` a line of progress now and then.

        **Returns:**

        Named arrays: all that the claims and the figure need.
        """

    @abc.abstractmethod
    def claims(self, data: Mapping[str, np.ndarray]) -> list[Claim]:
        """What the paper says, checked on what was measured."""

    @abc.abstractmethod
    def draw(self, figure: Any, data: Mapping[str, np.ndarray]) -> None:
        """Draws what was measured into a `matplotlib.figure.Figure`."""
