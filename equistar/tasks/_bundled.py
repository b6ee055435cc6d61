"""The real data that every install has: images, tables and two photographs."""

from typing import Any

import numpy as np

from .._names import suggest
from ._arrays import dataset_from_arrays, regression_from_arrays
from ._data import Dataset, RegressionDataset


def digits(seed: int = 0) -> Dataset:
    """scikit-learn's bundled digits: 1,797 grey images of 8x8, 10 classes.

    **Arguments:**

    - `seed`: of the split into train, inner_valid, outer_valid and test.

    **Returns:**

    A [`equistar.tasks.Dataset`][].
    """
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    images = bunch.images.astype(np.uint8)  # pyright: ignore
    labels = bunch.target  # pyright: ignore
    return dataset_from_arrays(images, labels, scale=1 / 16, seed=seed)


def breast_cancer(seed: int = 0) -> Dataset:
    """scikit-learn's bundled breast cancers: 569 rows of 30 numbers, 2 classes.

    Each column has mean zero and variance one, over the examples of all splits.

    **Arguments:**

    - `seed`: of the split into train, inner_valid, outer_valid and test.

    **Returns:**

    A [`equistar.tasks.Dataset`][].
    """
    import sklearn.datasets

    bunch: Any = sklearn.datasets.load_breast_cancer()
    return dataset_from_arrays(_standardised(bunch.data), bunch.target, seed=seed)


def wine(seed: int = 0) -> Dataset:
    """scikit-learn's bundled wines: 178 rows of 13 numbers, 3 classes.

    Each column has mean zero and variance one, over the examples of all splits.

    **Arguments:**

    - `seed`: of the split into train, inner_valid, outer_valid and test.

    **Returns:**

    A [`equistar.tasks.Dataset`][].
    """
    import sklearn.datasets

    bunch: Any = sklearn.datasets.load_wine()
    return dataset_from_arrays(_standardised(bunch.data), bunch.target, seed=seed)


def diabetes(seed: int = 0) -> RegressionDataset:
    """scikit-learn's bundled diabetes patients: 442 rows of 10 numbers, one to predict.

    Each column, and the target, has mean zero and variance one, over the examples of all
    splits.

    **Arguments:**

    - `seed`: of the split into train, inner_valid, outer_valid and test.

    **Returns:**

    A [`equistar.tasks.RegressionDataset`][].
    """
    import sklearn.datasets

    bunch: Any = sklearn.datasets.load_diabetes()
    rows, target = _standardised(bunch.data), _standardised(bunch.target)
    return regression_from_arrays(rows, target, seed=seed)


_PHOTOGRAPHS = "china.jpg", "flower.jpg"


def photograph(seed: int = 0, name: str = "china.jpg") -> RegressionDataset:
    """The colours of a photograph at coordinates: 64x64 pixels, from scikit-learn.

    Inputs are (x, y) in [-1, 1], targets red, green and blue, each of mean zero and
    variance one: the middle of the photograph, in blocks of 6x6 pixels.

    **Arguments:**

    - `seed`: of the split of the pixels into train, inner_valid, outer_valid and test.
    - `name`: `"china.jpg"` or `"flower.jpg"`.

    **Returns:**

    A [`equistar.tasks.RegressionDataset`][].

    **Raises:**

    `ValueError` for another name.
    """
    if name not in _PHOTOGRAPHS:
        raise ValueError(
            f"There is no photograph {name!r}: {suggest(str(name), _PHOTOGRAPHS)}."
        )
    import sklearn.datasets

    image = np.asarray(sklearn.datasets.load_sample_image(name), np.float64)
    top, left = (image.shape[0] - 384) // 2, (image.shape[1] - 384) // 2
    square = image[top : top + 384, left : left + 384]
    colours = square.reshape(64, 6, 64, 6, 3).mean((1, 3)).reshape(-1, 3)
    # The middles of the pixels.
    axis = (np.arange(64) + 0.5) / 32 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    places = np.stack([x.ravel(), y.ravel()], -1)
    return regression_from_arrays(places, _standardised(colours), seed=seed)


def _standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / x.std(0)
