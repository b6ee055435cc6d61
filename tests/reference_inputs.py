"""What the network sees of a tensor, in NumPy: its moving averages and 39 inputs.

The first half of the reference: see `reference.py`.
"""

from typing import Any

import numpy as np

import equistar as eqs


TIMESCALES = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)

# By their numbers in the paper, the inputs in the order in which `AdafactorFeatures` has
# them: those of elements, of rows, of columns and of the whole tensor.
OF_ELEMENTS = (*range(13), 25, 26, 27)
OF_ROWS = (13, 14, 15, 19, 20, 21)
OF_COLUMNS = (16, 17, 18, 22, 23, 24)
OF_TENSOR = tuple(range(28, 39))

# For each accumulator, by name, one moving average for each decay: an array, or a row
# and a column statistic, in which the axis that was averaged over is kept, of size 1.
Averages = dict[str, list[Any]]


def no_reference(part: Any) -> ValueError:
    return ValueError(f"There is no reference for {type(part).__name__}.")


# Moving averages.


def start_averages(bank: dict[str, Any]) -> Averages:
    """Before the first update: all are zero."""
    zero = lambda kept: (0.0, 0.0) if isinstance(kept, eqs.FactoredSecondMoment) else 0.0
    return {name: [zero(kept) for _ in kept.decays] for name, kept in bank.items()}


def updated_averages(kept: Any, old: list[Any], g: np.ndarray) -> list[Any]:
    """m <- b m + (1 - b) g, v <- b v + (1 - b) g^2, and the like of rows and columns."""
    old_and_complements = zip(old, decay_complements(kept), strict=True)
    match kept:
        case eqs.Momentum():
            return [blend(m, g, c) for m, c in old_and_complements]
        case eqs.SecondMoment():
            return [blend(v, g**2, c) for v, c in old_and_complements]
        case eqs.FactoredSecondMoment():
            row, column = row_and_column_means(g**2 + 1e-30)
            return [
                (blend(r, row, c), blend(k, column, c)) for (r, k), c in old_and_complements
            ]
        case other:
            raise no_reference(other)


def decay_complements(kept: Any) -> list[Any]:
    """1 - b = (1 - b_init) exp(10 theta_b); of second moments b is clipped to [0, 1]."""
    if not isinstance(kept.correction, eqs.NoBiasCorrection):
        raise no_reference(kept.correction)
    complements = [
        (1 - b) * np.exp(10 * theta)
        for b, theta in zip(kept.decays, kept.offsets, strict=True)
    ]
    if isinstance(kept, eqs.Momentum):
        return complements
    return [np.clip(c, 0, 1) for c in complements]


def blend(old: Any, new: Any, complement: Any) -> Any:
    """b old + (1 - b) new."""
    return (1 - complement) * old + complement * new


def row_and_column_means(squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The means over d0, and over d1; a scalar or vector is not factored."""
    if squares.ndim < 2:
        return squares, squares
    d1, d0 = second_largest_and_largest_axis(squares.shape)
    return np.mean(squares, d0, keepdims=True), np.mean(squares, d1, keepdims=True)


def second_largest_and_largest_axis(shape: tuple[int, ...]) -> tuple[int, int]:
    """d1 and d0; of axes of one size the later counts as the larger."""
    *_, d1, d0 = sorted(range(len(shape)), key=lambda axis: (shape[axis], axis))
    return d1, d0


# Inputs.


def network_inputs(
    g: np.ndarray, p: np.ndarray, averages: Averages, count: int
) -> np.ndarray:
    """All 39, normalised, on a last axis and in the order of `AdafactorFeatures`."""
    m, (v,) = averages["momentum"], averages["second_moment"]
    factored = averages["factored"]
    rows, columns = zip(*factored, strict=True)
    inputs = [g, p, *m, v, *normalised_momenta(averages), inverse_rms(v)]  # 0 to 9.
    inputs += [g * gradient_factor(r, c) for r, c in factored]  # 10 to 12.
    inputs += [*rows, *columns]  # 13 to 18.
    inputs += [1 / np.sqrt(x + 1e-8) for x in (*rows, *columns)]  # 19 to 24.
    factors = [momentum_factor(r, c) for r, c in factored]
    inputs += [m_j * f for m_j, f in zip(m, factors, strict=True)]  # 25 to 27.
    inputs = [normalised(np.broadcast_to(x, p.shape)) for x in inputs]
    times = [np.tanh(count / tau - 1) for tau in TIMESCALES]
    inputs += [np.full(p.shape, t) for t in times]  # 28 to 38.
    order = [*OF_ELEMENTS, *OF_ROWS, *OF_COLUMNS, *OF_TENSOR]
    return np.stack([inputs[i] for i in order], axis=-1)


def inverse_rms(v: np.ndarray) -> np.ndarray:
    """R = 1 / sqrt(v + 1e-6)."""
    return 1 / np.sqrt(v + 1e-6)


def normalised_momenta(averages: Averages) -> list[np.ndarray]:
    """A_j = m_j R."""
    (v,) = averages["second_moment"]
    return [m * inverse_rms(v) for m in averages["momentum"]]


def gradient_factor(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """rf cf, or srs(d + 1e-9) of a scalar or vector."""
    if row.ndim < 2:
        return safe_inverse_root(row + 1e-9)
    return factor_of_rows_and_columns(row, column)


def momentum_factor(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """rf cf, or 1 / sqrt(d + 1e-6) of a scalar or vector."""
    if row.ndim < 2:
        return 1 / np.sqrt(row + 1e-6)
    return factor_of_rows_and_columns(row, column)


def factor_of_rows_and_columns(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    """rf cf, with rf = srs(row / (mean of row over d1 + 1e-9)) and cf = srs(column)."""
    shape = np.broadcast_shapes(row.shape, column.shape)
    d1, _ = second_largest_and_largest_axis(shape)
    relative = row / (np.mean(row, d1, keepdims=True) + 1e-9)
    return safe_inverse_root(relative) * safe_inverse_root(column)


def safe_inverse_root(x: np.ndarray) -> np.ndarray:
    """srs(x) = 1 / sqrt(max(x, 1e-9))."""
    return 1 / np.sqrt(np.maximum(x, 1e-9))


def normalised(x: np.ndarray) -> np.ndarray:
    """x / sqrt(1e-5 + mean(x^2)), the mean taken over the whole tensor."""
    return x / np.sqrt(1e-5 + np.mean(x**2))
