"""Which objective and which estimator survive, as the paper has it."""

from collections.abc import Iterable, Mapping

import numpy as np

from ._base import Claim


def hardest(data: Mapping[str, np.ndarray]) -> np.integer:
    """The case of the longest horizon, from the largest step size."""
    cases = data["cases"]
    return np.argmax(cases[:, 0] * 1e6 + cases[:, 1])


def claims(data: Mapping[str, np.ndarray], tolerance: float) -> list[Claim]:
    """What the paper says, where a run fails that ends further than `tolerance` from the
    best step size, relative to it."""
    errors = dict(zip(data["methods"].tolist(), data["error"], strict=True))
    # One that is not a number is a failure as well.
    failed = {name: ~(error < tolerance) for name, error in errors.items()}
    of_exact, cured = failed["G, closed form"], [n for n in failed if "renormalised" in n]
    return [
        Claim(
            "the exact gradient of G converges, also for larger t and start",
            "distance from the best step size at the end: "
            + _by_case((f"{e:.1%}" for e in errors["G, closed form"]), data),
            not of_exact.any(),
        ),
        _back_propagation_often_fails(data, failed),
        _it_fails_without_a_word(data, failed),
        Claim(
            "through the renormalised recursion every estimator does as well as that",
            f"failures {_counts(failed, cured)}",
            all(failed[n].sum() <= of_exact.sum() for n in cured),
        ),
        _no_estimator_helps_out_of_range(data, failed),
    ]


def _back_propagation_often_fails(
    data: Mapping[str, np.ndarray], failed: dict[str, np.ndarray]
) -> Claim:
    lost = np.array([failed[name] for name in _plain_backprop(failed)])
    by_case = lost.sum(0)
    worst_is_hardest = by_case[hardest(data)] == by_case.max() > by_case.min()
    return Claim(
        "back-propagation often fails, worst for large t and start",
        f"failures {_by_case((f'{k} of {len(lost)}' for k in by_case), data)}",
        bool(lost.mean() >= 0.5 and worst_is_hardest),
    )


def _it_fails_without_a_word(
    data: Mapping[str, np.ndarray], failed: dict[str, np.ndarray]
) -> Claim:
    backprop = _plain_backprop(failed)
    rows = np.isin(data["methods"], backprop)
    zeros, bad = data["zero_gradients"][rows] > 0, data["non_finite_gradients"][rows] > 0
    return Claim(
        "it fails through G too, and it fails without a word: gradients exactly zero",
        f"failures {_counts(failed, backprop)}; {int(zeros.sum())} runs met zeros, "
        f"{int(bad.sum())} NaN or infinity",
        bool(failed["G, plain, backprop"].any() and zeros.any()),
    )


def _no_estimator_helps_out_of_range(
    data: Mapping[str, np.ndarray], failed: dict[str, np.ndarray]
) -> Claim:
    beyond = np.any(np.abs(data["log_loss"]) > 87, axis=1)
    backprop = _plain_backprop(failed)
    others = [name for name in failed if "plain" in name and name not in backprop]
    lost = {name: int(failed[name][beyond].sum()) for name in others}
    number = int(beyond.sum())
    return Claim(
        "no estimator helps where the loss itself overflows or underflows",
        f"in {number} of {len(beyond)} cases it does, and there fail: "
        + ", ".join(f"{name}: {k}" for name, k in lost.items()),
        bool(beyond.any() and all(k == number for k in lost.values())),
    )


def _plain_backprop(names: Iterable[str]) -> list[str]:
    return [name for name in names if "plain, backprop" in name]


def _by_case(words: Iterable[str], data: Mapping[str, np.ndarray]) -> str:
    cases = zip(words, data["cases"], strict=True)
    return ", ".join(f"{word} (t = {t:.0f}, from {s:g})" for word, (t, s) in cases)


def _counts(failed: dict[str, np.ndarray], names: Iterable[str]) -> str:
    each = ((name, failed[name]) for name in names)
    return ", ".join(f"{name}: {lost.sum()} of {len(lost)}" for name, lost in each)
