"""Image data sets prepared by TensorFlow Datasets, read without TensorFlow."""

import os
import pathlib
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._kinds import as_path, as_seed
from .._names import look_up
from ._base import Split
from ._data import Dataset, Examples


@dataclass(frozen=True)
class ImageSource:
    """What a data set of TensorFlow Datasets must contain.

    **Attributes:**

    - `shape`: of an image, in bytes.
    - `classes`: number of classes.
    - `test`: the name of the split that is held out.
    """

    shape: tuple[int, int, int]
    classes: int
    test: str = "test"

    def check_image(self, image: np.ndarray) -> None:
        """Raises a `ValueError` if this is not such an image."""
        if image.shape != self.shape or image.dtype != np.uint8:
            raise ValueError(
                f"images should be bytes of shape {self.shape}; got {image.dtype} of "
                f"shape {image.shape}"
            )

    def check_labels(self, labels: np.ndarray | np.integer) -> None:
        """Raises a `ValueError` if these are not all labels of its classes."""
        if np.size(labels) and not 0 <= np.min(labels) <= np.max(labels) < self.classes:
            raise ValueError(
                f"labels should be from 0 to {self.classes - 1}; got {np.min(labels)} to "
                f"{np.max(labels)}"
            )


IMAGES = {
    "mnist": ImageSource((28, 28, 1), 10),
    "fashion_mnist": ImageSource((28, 28, 1), 10),
    "cifar10": ImageSource((32, 32, 3), 10),
    "cifar100": ImageSource((32, 32, 3), 100),
    "svhn_cropped": ImageSource((32, 32, 3), 10),
    "imagenet_resized/16x16": ImageSource((16, 16, 3), 1000, "validation"),
    "imagenet_resized/32x32": ImageSource((32, 32, 3), 1000, "validation"),
}
"""The data sets that [`equistar.tasks.tfds_images`][] reads, by name."""


def tfds_images(
    name: str, *, data_dir: str | os.PathLike[str] | None = None, seed: int = 0
) -> Dataset:
    """A labelled image data set of TensorFlow Datasets that is prepared on this machine.

    `equistar data prepare NAME` prepares one. Reading needs neither TensorFlow nor a
    network. The images are held on the device as bytes and scaled by 1/255 when used.

    **Arguments:**

    - `name`: a key of [`equistar.tasks.IMAGES`][], say `"fashion_mnist"`.
    - `data_dir`: where data sets are prepared; by default `$TFDS_DATA_DIR`, or else
        `~/tensorflow_datasets`.
    - `seed`: of the split of its training images into 80 % train, 10 % inner_valid and
        10 % outer_valid; its own held-out images are the test split.

    **Returns:**

    A [`equistar.tasks.Dataset`][].

    **Raises:**

    `ValueError` if there is no such name or its files cannot be used, `FileNotFoundError`
    if it is not prepared.
    """
    seed = as_seed(seed)
    source, folder, train, test = prepared_sources(name, data_dir)
    with tfds_errors(name, folder):
        return _dataset(source, train, test, seed)


def prepared_sources(
    name: str, data_dir: str | os.PathLike[str] | None = None
) -> tuple[ImageSource, pathlib.Path, Sequence[Any], Sequence[Any]]:
    """A prepared data set: its kind, its folder, its train and its test examples."""
    source = look_up(name, IMAGES, "data set")
    folder = require_prepared(name, data_dir)
    with tfds_errors(name, folder):
        train, test = (read_split(folder, split) for split in ("train", source.test))
    return source, folder, train, test


def require_prepared(
    name: str, data_dir: str | os.PathLike[str] | None = None
) -> pathlib.Path:
    """The folder of a data set, or a `FileNotFoundError` that says how to make it."""
    folder = prepared_folder(name, data_dir)
    if folder is None:
        raise FileNotFoundError(
            f"The data set '{name}' is not prepared in {data_folder(data_dir)}: run "
            f"`equistar data prepare {name}`, or say where it is by `data_dir` or the "
            "variable TFDS_DATA_DIR."
        )
    return folder


def read_split(folder: pathlib.Path, split: str) -> Sequence[Any]:
    """The examples of a split, by number, without TensorFlow."""
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    return builder.as_data_source(split)


@contextmanager
def tfds_errors(name: str, folder: pathlib.Path) -> Iterator[None]:
    """Says of which data set an error in reading one is, and what to do."""
    try:
        yield
    # What is no fault of the files: too little memory, a package that is not there.
    except (MemoryError, ImportError, jax.errors.JaxRuntimeError):
        raise
    except NotImplementedError as e:
        raise ValueError(
            f"The data set in {folder} is in a format of TensorFlow's, which is read in "
            "order only: prepare it in another folder, by `equistar data prepare "
            f"{name} --data-dir FOLDER`."
        ) from e
    except Exception as e:
        raise ValueError(
            f"The data set in {folder} cannot be read ({type(e).__name__}: {e}): delete "
            f"the folder and run `equistar data prepare {name} --data-dir "
            f"{shlex.quote(str(folder.parents[1]))}`."
        ) from e


def data_folder(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Where data sets are prepared: an argument, or the variable, or the default."""
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    try:
        folder = as_path(chosen, "data_dir").expanduser()
    except RuntimeError as e:
        raise ValueError(
            "There is no home folder to keep data in: set TFDS_DATA_DIR to a folder."
        ) from e
    if folder.is_file():
        raise ValueError(f"{folder} is a file: data sets are prepared in a folder.")
    return folder


def prepared_folder(
    name: str, data_dir: str | os.PathLike[str] | None = None
) -> pathlib.Path | None:
    """The newest prepared version of a data set, or `None`."""
    # Looked for on the disk: offline, TensorFlow Datasets itself tries for minutes.
    found = (data_folder(data_dir) / name).glob("*/dataset_info.json")
    versions = [path.parent for path in found if _version(path.parent) is not None]
    return max(versions, key=_version, default=None)  # pyright: ignore


def _version(folder: pathlib.Path) -> tuple[int, ...] | None:
    parts = folder.name.split(".")
    return tuple(map(int, parts)) if all(p.isdigit() for p in parts) else None


def _dataset(
    source: ImageSource, train: Sequence[Any], test: Sequence[Any], seed: int
) -> Dataset:
    images, labels = _arrays(source, train)
    order = np.asarray(jr.permutation(jr.key(seed), len(labels)))
    bounds = [0, round(0.8 * len(order)), round(0.9 * len(order)), len(order)]
    learned = Split.TRAIN, Split.INNER_VALID, Split.OUTER_VALID
    parts = {
        split.value: (images[order[low:high]], labels[order[low:high]])
        for split, low, high in zip(learned, bounds[:-1], bounds[1:], strict=True)
    }
    parts[Split.TEST.value] = _arrays(source, test)
    splits = {
        split: Examples(jax.device_put(x), jnp.asarray(y))
        for split, (x, y) in parts.items()
    }
    return Dataset(splits, source.classes, 1 / 255)


def _arrays(source: ImageSource, examples: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(examples), *source.shape), np.uint8)
    labels = np.empty(len(examples), np.int32)
    for i, (image, label) in enumerate(_pairs(examples)):
        source.check_image(image)
        images[i], labels[i] = image, label
    source.check_labels(labels)
    return images, labels


def _pairs(examples: Sequence[Any]) -> Iterator[tuple[np.ndarray, int]]:
    for i in range(len(examples)):
        example = examples[i]
        yield np.asarray(example["image"]), int(example["label"])
