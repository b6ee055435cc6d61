"""Slabs of text, and files of tokens to take them from."""

import jax
import numpy as np
from jaxtyping import Shaped

from .._kinds import as_count
from ._base import Split
from ._slabs import Slabs
from ._text import stored_tokens, TextDataset


def text_slabs(
    train: np.ndarray,
    test: np.ndarray,
    vocabulary: int,
    *,
    size: int = 4096,
    row: int = 4096,
    held_out: int = 64,
    seed: int = 0,
    ahead: int = 1,
) -> Slabs[TextDataset]:
    """Slabs of a long text, which may be a `numpy.memmap` of a file.

    The text is cut into rows of `row` tokens, and a slab's train split is `size` rows, one
    after the other. The other splits do not change: two of them have `held_out` rows each
    from the end of `train`, and the test split has the first `held_out` rows of `test`.

    **Arguments:**

    - `train`, `test`: whole numbers from 0 up, along one axis.
    - `vocabulary`: number of different tokens.
    - `size`: rows in a slab: 4096 of 4096 are 16.8 million tokens.
    - `row`: tokens in a row, at least 20. Neighbouring rows of a slab are from different
        parts of the text.
    - `held_out`: rows in each of the other splits.
    - `seed`: of the order of the slabs.
    - `ahead`: slabs that are read ahead.

    **Returns:**

    [`equistar.tasks.Slabs`][], each of which is a [`equistar.tasks.TextDataset`][].

    **Raises:**

    `ValueError` if an argument is not of its kind, `train` has fewer rows than a slab and
    two held-out splits, `row` is below 20, or tokens are not whole numbers below
    `vocabulary`.
    """
    size, row = as_count(size, "size"), as_count(row, "row", 20)
    held_out = as_count(held_out, "held_out")
    vocabulary = as_count(vocabulary, "vocabulary")
    for name, tokens in (("train", train), ("test", test)):
        # Not of the whole, which may be a list.
        if np.ndim(tokens[:1]) != 1:
            raise ValueError(f"`{name}` must be whole numbers along one axis, the tokens.")
    rows = len(train) // row - 2 * held_out
    if rows < size:
        raise ValueError(
            f"Slabs of {size} rows of {row} tokens and two held-out splits of {held_out} "
            f"rows do not fit into {len(train)} tokens: make `size`, `row` or `held_out` "
            "smaller, down to 1, 20 and 1."
        )
    fixed = {
        Split.INNER_VALID: train[rows * row : (rows + held_out) * row],
        Split.OUTER_VALID: train[(rows + held_out) * row : (rows + 2 * held_out) * row],
        Split.TEST: test[: held_out * row],
    }
    put = lambda tokens: jax.device_put(stored_tokens(np.asarray(tokens), vocabulary))
    kept = {split.value: put(tokens) for split, tokens in fixed.items()}

    def make(slab: Shaped[np.ndarray, "size row"]) -> TextDataset:
        splits = {Split.TRAIN.value: jax.device_put(slab.reshape(-1)), **kept}
        return TextDataset(splits, vocabulary)

    return Slabs(_Rows(train, rows, row, vocabulary), size, make, seed=seed, ahead=ahead)


class _Rows:
    """Equal pieces of a long text, checked, in their storage type."""

    def __init__(self, tokens: np.ndarray, rows: int, row: int, vocabulary: int):
        self.tokens, self.rows, self.row = tokens, rows, row
        self.vocabulary = vocabulary

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int) -> np.ndarray:
        piece = np.asarray(self.tokens[i * self.row : (i + 1) * self.row])
        return stored_tokens(piece, self.vocabulary)
