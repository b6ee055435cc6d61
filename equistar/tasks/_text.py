"""Text: streams of tokens, and the one that every install has."""

import pathlib
import sysconfig

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, UInt8

from .._kinds import as_count, as_int, check_count
from ._base import Split, split_bounds
from ._split_checks import check_splits, check_whole_numbers


class TextDataset(eqx.Module):
    """Streams of tokens, one for each split.

    **Attributes:**

    - `splits`: the tokens of each `Split`, by its value, in their storage type.
    - `vocabulary`: number of different tokens.

    **Raises:**

    `ValueError` if a split is missing, or holds something else than whole numbers from 0 up
    and below `vocabulary`, or if that is no whole number.
    """

    splits: dict[str, UInt8[Array, " n"] | Int[Array, " n"]]
    vocabulary: int = eqx.field(converter=as_int, static=True)

    def __check_init__(self):
        check_count(self.vocabulary, "vocabulary")
        check_splits(self.splits, "TextDataset", jax.Array, np.ndarray)
        check_whole_numbers(self.splits, self.vocabulary, "Tokens")

    def __getitem__(self, split: Split | str) -> UInt8[Array, " n"] | Int[Array, " n"]:
        return self.splits[Split(split).value]

    def windows(
        self, split: Split, length: int, size: int, *, key: PRNGKeyArray
    ) -> Int[Array, "size length"]:
        """`size` windows of `length` tokens, from positions drawn at random."""
        # NumPy's cannot be indexed inside of jit.
        tokens = jnp.asarray(self[split])
        starts = jr.randint(key, (size, 1), 0, len(tokens) - length + 1)
        return tokens[starts + jnp.arange(length)[None]].astype(jnp.int32)


def text_from_tokens(tokens: np.ndarray, vocabulary: int | None = None) -> TextDataset:
    """Text of your own, in four pieces one after the other.

    **Arguments:**

    - `tokens`: bytes (uint8) or other whole numbers from 0 up, along one axis. Bytes of a
        string: `np.frombuffer(text.encode(), np.uint8)`.
    - `vocabulary`: number of different tokens; by default the largest one plus one.

    **Returns:**

    A [`equistar.tasks.TextDataset`][]. The first 70 % are the train split, followed by 10 %
    for each of the other three.

    **Raises:**

    `ValueError` if there are fewer than 20 tokens, some are not whole numbers below
    `vocabulary`, or that is no whole number.
    """
    tokens = np.asarray(tokens)
    _check_tokens(tokens)
    if vocabulary is None:
        vocabulary = int(tokens.max()) + 1
    vocabulary = as_count(vocabulary, "vocabulary")
    stored = stored_tokens(tokens, vocabulary)
    parts = split_bounds(len(stored))
    splits = {s.value: jax.device_put(stored[a:b]) for s, a, b in parts}
    return TextDataset(splits, vocabulary)


def stored_tokens(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """Tokens in their storage type; a `ValueError` if they are not of this vocabulary."""
    _check_tokens(tokens)
    if tokens.max() >= vocabulary:
        raise ValueError(
            f"Tokens must be below `vocabulary`, {vocabulary}; got {tokens.max()}."
        )
    if vocabulary > np.iinfo(np.int32).max:
        raise ValueError(
            f"Tokens are kept as 32-bit integers, and a `vocabulary` of {vocabulary} is "
            "beyond them: number those that occur."
        )
    return tokens.astype(np.uint8 if vocabulary <= 256 else np.int32)


def _check_tokens(tokens: np.ndarray) -> None:
    if not np.issubdtype(tokens.dtype, np.integer):
        raise ValueError(
            f"Tokens must be integers from 0 up; got dtype {tokens.dtype}: for the bytes "
            "of a string pass `np.frombuffer(text.encode(), np.uint8)`."
        )
    if tokens.ndim != 1 or len(tokens) < 20:
        raise ValueError(f"Text needs at least 20 tokens in a row; got {tokens.shape}.")
    if tokens.min() < 0:
        raise ValueError(f"Tokens must be integers from 0 up; got {tokens.min()}.")


# These have the same names in Python 3.11 to 3.14, and are all of them plain files.
_MODULES = (
    *("ast", "bdb", "calendar", "contextlib", "dataclasses", "difflib", "enum"),
    *("fractions", "functools", "gzip", "heapq", "ipaddress", "optparse", "pickle"),
    *("random", "shutil", "socket", "statistics", "subprocess", "tempfile"),
    *("threading", "traceback", "typing"),
)


def standard_library_text() -> TextDataset:
    """Source text of Python's standard library: about 1.2 MB of ASCII, 128 tokens.

    It consists of the sources of a fixed list of modules, in alphabetical order, without
    characters other than ASCII. It is the same on every machine with the same version of
    Python, but versions differ. The splits come from different modules,
    except for the three modules that they are cut in.

    **Returns:**

    A [`equistar.tasks.TextDataset`][].

    **Raises:**

    `FileNotFoundError` if Python was installed without its sources.
    """
    folder = pathlib.Path(sysconfig.get_path("stdlib"))
    files = [folder / f"{name}.py" for name in _MODULES]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"Python's own sources {missing} are not in {folder}: take text of your own "
            "with `equistar.tasks.text_from_tokens`."
        )
    source = b"".join(file.read_bytes() for file in files).replace(b"\r\n", b"\n")
    text = np.frombuffer(source, np.uint8)
    return text_from_tokens(text[text < 128], vocabulary=128)
