"""Labels that are wrong."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import PRNGKeyArray

from .._kinds import as_number, as_seed, check_kind
from ._base import Split
from ._data import Dataset, Examples


def with_label_noise(
    dataset: Dataset,
    share: float,
    *,
    seed: int = 0,
    splits: Sequence[Split | str] = (Split.TRAIN,),
) -> Dataset:
    """A data set in which some labels are drawn again, uniformly over the classes.

    One in `classes` of the redrawn labels is right by chance.

    **Arguments:**

    - `dataset`: with the right labels.
    - `share`: the probability with which each label is redrawn.
    - `seed`: of the noise. The same labels are redrawn at every use of the data.
    - `splits`: whose labels are noisy. With `Split.INNER_VALID` too, the held-out data of
        a meta-training are as noisy as the training data.

    **Returns:**

    A [`equistar.tasks.Dataset`][] with the same inputs.

    **Raises:**

    `ValueError` if `dataset` has no classes, `share` is not between 0 and 1, or `splits`
    are no splits.
    """
    check_kind(dataset, Dataset, "`dataset`", "a Dataset with classes, say `digits()`")
    share, seed = as_number(share, "`share`", "0.1"), as_seed(seed)
    if not 0 <= share <= 1:
        raise ValueError(f"`share` must be between 0 and 1; got {share}.")
    if isinstance(splits, Split | str):
        raise ValueError(
            f"`splits` must be several `Split`s, say `(Split.TEST,)`; got {splits!r:.80}."
        )
    noisy = [Split(split) for split in splits]
    parts = dict(dataset.splits)
    for i, split in enumerate(Split):
        if split in noisy:
            key = jr.fold_in(jr.key(seed), i)
            parts[split.value] = _noisy(dataset[split], dataset.classes, share, key)
    return eqx.tree_at(lambda d: d.splits, dataset, parts)


def _noisy(examples: Examples, classes: int, share: float, key: PRNGKeyArray) -> Examples:
    which_key, label_key = jr.split(key)
    targets = examples.targets
    chosen = jr.bernoulli(which_key, share, targets.shape)
    drawn = jr.randint(label_key, targets.shape, 0, classes, targets.dtype)
    return Examples(examples.inputs, jnp.where(chosen, drawn, targets))
