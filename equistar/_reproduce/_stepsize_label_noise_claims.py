"""What label noise does to train-by-train and train-by-validation, as the paper has it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
from jaxtyping import Float

from ._base import Claim
from ._stepsize_label_noise_tasks import Arm


class _Interval(NamedTuple):
    """A mean over the seeds, and its 95 % interval by Student's t."""

    middle: float
    low: float
    high: float

    def text(self) -> str:
        return f"{self.middle:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"


def arms_of(data: Mapping[str, np.ndarray]) -> list[Arm]:
    """The arms that were measured."""
    columns = (data[k].tolist() for k in ("training", "validation", "noise"))
    return [Arm(*row) for row in zip(*columns, strict=True)]


def claims(data: Mapping[str, np.ndarray]) -> list[Claim]:
    """What the paper says, on accuracies where the optimizers were meta-trained to be
    good; what they do beyond is a matter apart."""
    arms = arms_of(data)
    noisy = [i for i, arm in enumerate(arms) if arm.noise > 0]
    largest = max(arm.training + arm.validation for arm in arms)
    whole = [
        i
        for i, arm in enumerate(arms)
        if not arm.noise and arm.training + arm.validation == largest
    ]
    return [
        *_validation_data_win(data, noisy),
        _noise_is_fitted(data, noisy),
        *_without_noise_there_is_no_difference(data, whole),
    ]


def _validation_data_win(
    data: Mapping[str, np.ndarray], noisy: Sequence[int]
) -> list[Claim]:
    def claim(key: str, pair: tuple[int, int]) -> Claim:
        inside, beyond = (
            _gain(a, pair) for a in (_at_the_horizon(data), _at_the_end(data))
        )
        return Claim(
            f"with label noise, validation data win clearly against as many {key}",
            f"{_compared(data, pair)}; after {data['step'][-1]} steps {beyond.text()}",
            inside.low > 0,
        )

    return [claim(*item) for item in _pairs(arms_of(data), noisy).items()]


def _noise_is_fitted(data: Mapping[str, np.ndarray], noisy: Sequence[int]) -> Claim:
    arms, accuracy = arms_of(data), _at_the_horizon(data)
    fitted = [i for i in noisy if not arms[i].validation]
    # A class that is drawn again may be the true one.
    wrong = 1 - 1 / data["classes"]
    true = [1 - wrong * arms[i].noise for i in fitted]
    return Claim(
        "train-by-train fits the noisy labels",
        f"training accuracy {', '.join(_mean(data, i, 0) for i in noisy)}, where the true "
        f"classes would have {min(true, default=1):.0%}",
        all(accuracy[i, :, 0].mean() > t for i, t in zip(fitted, true, strict=True)),
    )


def _without_noise_there_is_no_difference(
    data: Mapping[str, np.ndarray], whole: Sequence[int]
) -> list[Claim]:
    pairs, accuracy = _pairs(arms_of(data), whole).values(), _at_the_horizon(data)
    claim = Claim(
        "without noise and with the most data there is no difference, to 1 %",
        "; ".join(_compared(data, pair) for pair in pairs),
        all(abs(_gain(accuracy, pair).middle) < 0.01 for pair in pairs),
    )
    return [claim] if pairs else []


def _pairs(arms: Sequence[Arm], chosen: Sequence[int]) -> dict[str, tuple[int, int]]:
    """Train-by-validation, and train-by-train with as many samples, by which these are."""
    found = {}
    for i in (i for i in chosen if arms[i].validation):
        for j in (j for j in chosen if not arms[j].validation):
            same = arms[j].training == arms[i].training
            found["training samples" if same else "samples in all"] = i, j
    return found


def _at_the_horizon(data: Mapping[str, np.ndarray]) -> Float[np.ndarray, "arms seeds 2"]:
    steps = data["step"]
    horizon = np.searchsorted(steps, min(data["horizon"], steps[-1]))
    return data["accuracy"][..., horizon]


def _at_the_end(data: Mapping[str, np.ndarray]) -> Float[np.ndarray, "arms seeds 2"]:
    return data["accuracy"][..., -1]


def _gain(accuracy: Float[np.ndarray, "arms seeds 2"], pair: tuple[int, int]) -> _Interval:
    """By how much the first arm's test accuracy is above the second's."""
    i, j = pair
    return _interval(accuracy[i, :, 1] - accuracy[j, :, 1])


def _interval(differences: Float[np.ndarray, " seeds"]) -> _Interval:
    n = len(differences)
    middle = float(differences.mean())
    if n < 2:
        return _Interval(middle, -np.inf, np.inf)
    error = differences.std(ddof=1) / np.sqrt(n) * scipy.stats.t.ppf(0.975, n - 1)
    return _Interval(middle, float(middle - error), float(middle + error))


def _compared(data: Mapping[str, np.ndarray], pair: tuple[int, int]) -> str:
    first, second = (_mean(data, i, 1) for i in pair)
    gain = _gain(_at_the_horizon(data), pair)
    return f"test accuracy {first} against {second}: {gain.text()}"


def _mean(data: Mapping[str, np.ndarray], i: int, which: int) -> str:
    """An arm and its accuracy on the training (0) or the test data (1)."""
    accuracy = _at_the_horizon(data)[i, :, which].mean()
    return f"{arms_of(data)[i].name()}: {accuracy:.1%}"
