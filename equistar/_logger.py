"""What a meta-step measured, and who is told."""

import abc

import equinox as eqx
from jaxtyping import Array, Float, Int, PyTree


class Metrics(eqx.Module):
    """What one meta-step measured; see [`equistar.MetaGradient`][]."""

    meta_loss: Float[Array, ""]
    gradient_norm: Float[Array, ""]
    diverged: Int[Array, ""]
    dead: Int[Array, ""]
    dropped: Int[Array, ""]
    skipped: Int[Array, ""]


class AbstractLogger(eqx.Module):
    """Is told of every meta-step; printing, files and clocks live in loggers."""

    @abc.abstractmethod
    def __call__(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        """Called after meta-step `step` = 1, 2, ...

        **Arguments:**

        - `step`: number of the meta-step.
        - `metrics`: what it measured, on the host.
        - `theta`: the meta-parameters after it.
        """


class NoLogger(AbstractLogger):
    """Tells nobody."""

    def __call__(self, step: int, metrics: Metrics, theta: PyTree) -> None:
        pass
