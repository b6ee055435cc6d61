"""Parts that read accumulators."""

from collections.abc import Collection

import equinox as eqx

from .._kinds import check_parts


class AbstractReader(eqx.Module):
    """A part that reads the accumulators that `reads` names: by default none."""

    # Not annotated, so that type checkers let a part pass on another's by a property.
    reads = tuple[str, ...]()

    def __check_init__(self) -> None:
        check_parts(self)
        if isinstance(self.reads, str):
            raise ValueError(
                f"`reads` of {type(self).__name__} must be a tuple of names: write "
                f"`reads = ({self.reads!r},)`, with a comma."
            )
        names = self.reads if isinstance(self.reads, Collection) else (None,)
        if not all(isinstance(name, str) for name in names):
            raise ValueError(
                f"`reads` of {type(self).__name__} must be a tuple of names, say "
                f"`('momentum',)`; got {self.reads!r:.80}."
            )
