"""The order of the released network's inputs, which is the paper's, and ours."""

from .._components import TIMESCALES


def kind_order(n: int) -> list[int]:
    """The position in the paper's order of each input in the order of
    `AdafactorFeatures`, by kind (element, row, column, tensor), for `n` decays.
    """
    starts = {"row": 4 + 3 * n, "column": 4 + 4 * n}
    inverse = {"row": 4 + 5 * n, "column": 4 + 6 * n}
    scaled_momenta = 4 + 7 * n
    element = [*range(4 + 3 * n), *range(scaled_momenta, scaled_momenta + n)]
    spread = [
        i
        for kind in ("row", "column")
        for start in (starts[kind], inverse[kind])
        for i in range(start, start + n)
    ]
    time = scaled_momenta + n
    return element + spread + list(range(time, time + len(TIMESCALES)))
