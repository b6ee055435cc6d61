"""Who is told how far an evaluation is."""

import abc

import equinox as eqx


class AbstractProgress(eqx.Module):
    """Is told about the progress of an evaluation, for instance to print it."""

    @abc.abstractmethod
    def say(self, text: str) -> None:
        """Something worth a line: what begins, what was found on disk, what failed."""

    @abc.abstractmethod
    def advance(self, label: str, done: int, total: int) -> None:
        """`done` of `total` steps of the training called `label` are done."""


class NoProgress(AbstractProgress):
    """Does nothing."""

    def say(self, text: str) -> None:
        pass

    def advance(self, label: str, done: int, total: int) -> None:
        pass
