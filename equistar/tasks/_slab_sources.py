"""Slabs of labelled examples, with held-out splits that stay."""

import os
import pathlib

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._keys import apart
from .._kinds import as_count, as_seed, check_kind
from ._arrays import check_labels, stored
from ._base import Split
from ._data import Dataset, Examples
from ._slabs import RandomAccess, Slabs
from ._split_checks import checked_scale
from ._tfds import ImageSource, prepared_sources, tfds_errors


def classification_slabs(
    train: RandomAccess,
    test: RandomAccess,
    classes: int,
    *,
    size: int,
    held_out: int = 8192,
    scale: float = 1.0,
    seed: int = 0,
    ahead: int = 1,
) -> Slabs[Dataset]:
    """Slabs of labelled examples from any source.

    The train split is a slab. The other splits have `held_out` examples each, which are
    drawn once and then stay. No slab contains any of them.

    **Arguments:**

    - `train`: pairs of an input and a label 0, 1, ..., by index.
    - `test`: the same, for the test split.
    - `classes`: number of classes.
    - `size`: examples in a slab.
    - `held_out`: examples in each of the other splits, or all that `test` has.
    - `scale`: inputs are multiplied by it when they are used.
    - `seed`: of the split, and of the order of the slabs.
    - `ahead`: slabs that are read ahead.

    **Returns:**

    [`equistar.tasks.Slabs`][], each of which is a [`equistar.tasks.Dataset`][].

    **Raises:**

    `ValueError` if an argument is not of its kind, or if `train` has fewer examples than a
    slab and two held-out splits. Inputs and labels that
    [`equistar.tasks.dataset_from_arrays`][] refuses are refused here too, those of a slab
    when it is asked for.
    """
    size, held_out = as_count(size, "size"), as_count(held_out, "held_out")
    classes, seed = as_count(classes, "classes", 2), as_seed(seed)
    scale = checked_scale(scale)
    _check_pairs(train, "train")
    _check_pairs(test, "test")
    left = len(train) - 2 * held_out
    if left < size:
        raise ValueError(
            f"Slabs of {size} examples and two held-out splits of {held_out} do not fit "
            f"into {len(train)} examples: make `size` or `held_out` smaller."
        )
    order = np.asarray(jr.permutation(jr.key(seed), len(train)))
    test_key = apart(jr.key(seed), "test")
    some = np.asarray(jr.permutation(test_key, len(test)))[:held_out]
    held = {
        Split.INNER_VALID: _Chosen(train, order[:held_out]),
        Split.OUTER_VALID: _Chosen(train, order[held_out : 2 * held_out]),
        Split.TEST: _Chosen(test, some),
    }
    fixed = {split.value: _all(chosen, classes) for split, chosen in held.items()}

    def make(slab: tuple[np.ndarray, np.ndarray]) -> Dataset:
        splits = {Split.TRAIN.value: _examples(*slab, classes), **fixed}
        return Dataset(splits, classes, scale)

    rest = _Chosen(train, order[2 * held_out :])
    return Slabs(rest, size, make, seed=seed, ahead=ahead)


def tfds_image_slabs(
    name: str,
    *,
    size: int = 131_072,
    held_out: int = 8192,
    data_dir: str | os.PathLike[str] | None = None,
    seed: int = 0,
    ahead: int = 1,
) -> Slabs[Dataset]:
    """Slabs of a prepared image data set that is larger than the device, say ImageNet.

    Otherwise like [`equistar.tasks.tfds_images`][]. A slab of 131,072 images of 32x32 takes
    403 MB.

    **Arguments:**

    - `name`: a key of [`equistar.tasks.IMAGES`][], say `"imagenet_resized/32x32"`.
    - `size`, `held_out`, `seed`, `ahead`: as for
        [`equistar.tasks.classification_slabs`][].
    - `data_dir`: where data sets are prepared.

    **Returns:** as [`equistar.tasks.classification_slabs`][].

    **Raises:**

    As [`equistar.tasks.tfds_images`][] and [`equistar.tasks.classification_slabs`][].
    """
    source, folder, train, test = prepared_sources(name, data_dir)
    return classification_slabs(
        _Images(name, folder, source, train),
        _Images(name, folder, source, test),
        source.classes,
        size=size,
        held_out=held_out,
        scale=1 / 255,
        seed=seed,
        ahead=ahead,
    )


class _Chosen:
    """Some of a source's pairs of an input and a label, as arrays, in an order."""

    def __init__(self, source: RandomAccess, index: np.ndarray):
        self.source, self.index = source, index
        self.shape = np.shape(source[0][0])

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        inputs, label = self.source[int(self.index[i])]
        if np.shape(inputs) != self.shape:
            raise ValueError(
                f"Inputs must have one shape, and one has {np.shape(inputs)} where the "
                f"first has {self.shape}: crop or pad them."
            )
        return np.asarray(inputs), np.asarray(label)


class _Images:
    """Checked images and labels of a data source of TensorFlow Datasets."""

    def __init__(
        self, name: str, folder: pathlib.Path, kind: ImageSource, source: RandomAccess
    ):
        self.name, self.folder, self.kind, self.source = name, folder, kind, source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.int32]:
        with tfds_errors(self.name, self.folder):
            example = self.source[i]
            image, label = np.asarray(example["image"]), np.int32(example["label"])
            self.kind.check_image(image)
            self.kind.check_labels(label)
            return image, label


def _check_pairs(source: RandomAccess, name: str) -> None:
    wanted = "pairs of an input and a label by their number, say `list(zip(x, y))`"
    check_kind(source, RandomAccess, f"`{name}`", wanted)
    if len(source) == 0 or not isinstance(source[0], tuple | list) or len(source[0]) != 2:
        raise ValueError(f"`{name}` must be {wanted}.")


def _all(source: RandomAccess, classes: int) -> Examples:
    pairs = [source[i] for i in range(len(source))]
    inputs, labels = zip(*pairs, strict=True)
    return _examples(np.stack(inputs), np.stack(labels), classes)


def _examples(inputs: np.ndarray, labels: np.ndarray, classes: int) -> Examples:
    check_labels(labels)
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(
            f"Labels must be from 0 to {classes - 1}; got {labels.min()} to {labels.max()}."
        )
    return Examples(
        jax.device_put(stored(inputs, "Inputs")), jnp.asarray(labels, jnp.int32)
    )
