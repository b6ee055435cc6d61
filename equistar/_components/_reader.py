"""Parts that read accumulators."""

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
