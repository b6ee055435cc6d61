"""Recurrent models of sequences of tokens."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..._kinds import as_int, check_count, check_parts
from ._base import AbstractArchitecture
from ._tokens import checked_tokens


class AbstractCell(eqx.Module):
    """Makes the step of a recurrent model.

    **Attributes:**

    - `states`: number of vectors that are passed from step to step.
    """

    states: eqx.AbstractClassVar[int]

    @abc.abstractmethod
    def build(self, inputs: int, width: int, *, key: PRNGKeyArray) -> eqx.Module:
        """A module that takes an input and a tuple of states, and returns the next states.

        The first state is also the output.

        **Arguments:**

        - `inputs`: numbers in an input.
        - `width`: numbers in a state.
        - `key`: the weights are drawn with it.
        """


class LSTM(AbstractCell):
    """Long short-term memory.

    $$(i, f, g, o) = W x + U h + b, \\qquad
    c' = \\sigma(f) \\odot c + \\sigma(i) \\odot \\tanh(g), \\qquad
    h' = \\sigma(o) \\odot \\tanh(c')$$

    with the states $h$, which is the output, and $c$.

    ??? cite

        ```bibtex
        @article{hochreiter1997long,
            title={Long Short-Term Memory},
            author={Hochreiter, Sepp and Schmidhuber, J{\\"u}rgen},
            journal={Neural Computation},
            year={1997},
        }
        ```
    """

    states: ClassVar[int] = 2

    def build(self, inputs: int, width: int, *, key: PRNGKeyArray) -> eqx.Module:
        return eqx.nn.LSTMCell(inputs, width, key=key)


class GRU(AbstractCell):
    """Gated recurrent units.

    $$r = \\sigma(W_r x + U_r h + b_r), \\qquad z = \\sigma(W_z x + U_z h + b_z)$$

    $$n = \\tanh(W_n x + b_n + r \\odot (U_n h + c_n)), \\qquad
    h' = z \\odot h + (1 - z) \\odot n$$

    ??? cite

        ```bibtex
        @inproceedings{cho2014learning,
            title={Learning Phrase Representations using {RNN} Encoder-Decoder for
                   Statistical Machine Translation},
            author={Cho, Kyunghyun and van Merrienboer, Bart and Gulcehre, Caglar and
                    Bahdanau, Dzmitry and Bougares, Fethi and Schwenk, Holger and
                    Bengio, Yoshua},
            booktitle={Conference on Empirical Methods in Natural Language Processing},
            year={2014},
            eprint={1406.1078},
        }
        ```
    """

    states: ClassVar[int] = 1

    def build(self, inputs: int, width: int, *, key: PRNGKeyArray) -> eqx.Module:
        return _GRU(eqx.nn.GRUCell(inputs, width, key=key))


class VanillaRNN(AbstractCell):
    """A simple recurrent network, $h' = \\tanh(W x + U h + b)$."""

    states: ClassVar[int] = 1

    def build(self, inputs: int, width: int, *, key: PRNGKeyArray) -> eqx.Module:
        input_key, state_key = jr.split(key)
        return _Vanilla(
            eqx.nn.Linear(inputs, width, key=input_key),
            eqx.nn.Linear(width, width, use_bias=False, key=state_key),
        )


class Recurrent(AbstractArchitecture):
    """Embeds tokens, runs a cell along them, and reads its outputs out linearly.

    **Attributes:**

    - `cell`: `LSTM()`, `GRU()` or `VanillaRNN()`.
    - `width`: of the cell's states.
    - `embedding`: width of the tokens' embedding.

    The defaults are the STAR paper's.

    **Raises:**

    `ValueError` if an attribute is not of its kind, or a width is below 1.
    """

    cell: AbstractCell = LSTM()
    width: int = eqx.field(default=256, converter=as_int, static=True)
    embedding: int = eqx.field(default=128, converter=as_int, static=True)

    def __check_init__(self):
        check_parts(self)
        check_count(self.width, "width")
        check_count(self.embedding, "embedding")

    def build(
        self, in_shape: tuple[int, ...], out_size: int, *, key: PRNGKeyArray
    ) -> eqx.Module:
        embed_key, cell_key, out_key = jr.split(key, 3)
        return _Recurrent(
            eqx.nn.Embedding(out_size, self.embedding, key=embed_key),
            self.cell.build(self.embedding, self.width, key=cell_key),
            eqx.nn.Linear(self.width, out_size, key=out_key),
            self.cell.states,
        )


class _Recurrent(eqx.Module):
    embedding: eqx.nn.Embedding
    cell: Any
    readout: eqx.nn.Linear
    states: int = eqx.field(converter=as_int, static=True)

    def __call__(self, tokens: Int[Array, " length"]) -> Float[Array, "length vocabulary"]:
        inputs = jax.vmap(self.embedding)(checked_tokens(tokens))
        width = self.readout.in_features
        start = (jnp.zeros(width, inputs.dtype),) * self.states  # pyright: ignore

        def step(
            states: tuple[Array, ...], x: Float[Array, " embedding"]
        ) -> tuple[tuple[Array, ...], Float[Array, " width"]]:
            states = self.cell(x, states)
            return states, states[0]

        outputs = lax.scan(step, start, inputs)[1]
        return jax.vmap(self.readout)(outputs)


class _GRU(eqx.Module):
    cell: eqx.nn.GRUCell

    def __call__(
        self, x: Float[Array, " inputs"], states: tuple[Float[Array, " width"]]
    ) -> tuple[Float[Array, " width"]]:
        return (self.cell(x, states[0]),)


class _Vanilla(eqx.Module):
    from_input: eqx.nn.Linear
    from_state: eqx.nn.Linear

    def __call__(
        self, x: Float[Array, " inputs"], states: tuple[Float[Array, " width"]]
    ) -> tuple[Float[Array, " width"]]:
        return (jnp.tanh(self.from_input(x) + self.from_state(states[0])),)
