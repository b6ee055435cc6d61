"""Language models."""

import math

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._kinds import as_count, check_kind
from ._architectures import AbstractArchitecture, Recurrent
from ._base import AbstractTask, Split
from ._model import apply_model, init_model
from ._text import TextDataset


class LanguageModelling(AbstractTask):
    """Cross-entropy of the next token, given those before it in a window.

    $$l = -\\frac{1}{B L} \\sum_{b, t}
    \\log \\operatorname{softmax}(z_{b, t})_{x_{b, t + 1}}$$

    where $z_{b, t}$ are the model's scores after the tokens $x_{b, 1}, \\dots, x_{b, t}$ in
    $B$ windows. Meta-training clips recorded losses at $1.5 \\ln V$ for $V$ tokens.
    """

    dataset: TextDataset
    architecture: AbstractArchitecture
    length: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)

    def __init__(
        self,
        dataset: TextDataset,
        architecture: AbstractArchitecture = Recurrent(),
        length: int = 32,
        batch_size: int = 32,
    ):
        """**Arguments:**

        - `dataset`: the text.
        - `architecture`: of the model: [`equistar.tasks.Recurrent`][],
            [`equistar.tasks.Transformer`][], or another that takes `length` tokens and
            returns a row of scores for each.
        - `length`: $L$, tokens that the model sees in a window.
        - `batch_size`: $B$, windows in a minibatch, from positions drawn at random.

        **Raises:**

        `ValueError` if an argument is not of its kind, `length` or `batch_size` is below 1,
        or a split is shorter than a window and the next token.
        """
        wanted = "a TextDataset, say `text_from_tokens(tokens)`"
        check_kind(dataset, TextDataset, "`dataset`", wanted)
        check_kind(architecture, AbstractArchitecture, "`architecture`")
        length = as_count(length, "length")
        batch_size = as_count(batch_size, "batch_size")
        shortest = min(len(dataset[split]) for split in Split)
        if shortest < length + 1:
            raise ValueError(
                f"Windows of {length} tokens and the next one do not fit into a split of "
                f"{shortest}: take a smaller `length` or more text."
            )
        self.dataset = dataset
        self.architecture = architecture
        self.length = length
        self.batch_size = batch_size

    @property
    def loss_bounds(self) -> tuple[float, float]:
        return 0.0, 1.5 * math.log(self.dataset.vocabulary)

    def init(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        size = self.dataset.vocabulary
        return init_model(self.architecture, (self.length,), size, key=key)

    def logits(
        self, params: PyTree[Array], tokens: Int[Array, "batch length"]
    ) -> Float[Array, "batch length vocabulary"]:
        """Scores of the token that follows each."""
        shape = self.length, self.dataset.vocabulary
        return apply_model(self.architecture, (self.length,), shape, params, tokens)

    def loss(
        self, params: PyTree[Array], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        windows = self.dataset.windows(split, self.length + 1, self.batch_size, key=key)
        logits = self.logits(params, windows[:, :-1])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, windows[:, 1:])
        return jnp.mean(losses)
