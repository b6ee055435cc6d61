"""Who is told how far an evaluation is."""

import abc

import equinox as eqx


class AbstractProgress(eqx.Module):
    """Is told how far an evaluation is; printing lives in those that do it."""

    @abc.abstractmethod
    def say(self, text: str) -> None:
        """Something worth a line: what begins, what was found on disk, what failed."""

    @abc.abstractmethod
    def advance(self, label: str, done: int, total: int) -> None:
        """`done` of `total` steps of the training `label` are behind us."""


class NoProgress(AbstractProgress):
    """Tells nobody."""

    def say(self, text: str) -> None:
        pass

    def advance(self, label: str, done: int, total: int) -> None:
        pass
