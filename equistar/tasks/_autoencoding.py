"""Auto-encoders: models that give back their own inputs through a narrow code."""

import math

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._kinds import as_count, check_kind
from ._architectures import AbstractArchitecture, MLP
from ._base import AbstractTask, Split
from ._data import Dataset, RegressionDataset
from ._likelihoods import AbstractLikelihood, BernoulliLikelihood
from ._model import apply_model, init_model
from ._split_checks import clipping_bound


_DATA = "a Dataset or a RegressionDataset, say `dataset_from_arrays(inputs, labels)`"


class Autoencoding(AbstractTask):
    """Mean squared error of a model that reconstructs its scaled inputs of $D$ numbers.

    $$l = \\frac{1}{B D} \\sum_{b, d} (f(x_b) - x_b)_d^2$$

    Meta-training clips recorded losses at 1.5 times the loss of an output of zeros.
    """

    dataset: Dataset | RegressionDataset
    architecture: AbstractArchitecture
    batch_size: int = eqx.field(static=True)
    loss_bounds: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self,
        dataset: Dataset | RegressionDataset,
        architecture: AbstractArchitecture = MLP((32, 8, 32)),
        batch_size: int = 64,
    ):
        """**Arguments:**

        - `dataset`: the data, of which only the inputs are used.
        - `architecture`: of the model, whose output is as large as its input.
        - `batch_size`: examples in a minibatch, drawn with replacement.

        **Raises:**

        `ValueError` if an argument is not of its kind, `batch_size` is below 1, or the
        training inputs are all zero, or have squares that are not finite.
        """
        check_kind(dataset, Dataset | RegressionDataset, "`dataset`", _DATA)
        check_kind(architecture, AbstractArchitecture, "`architecture`")
        batch_size = as_count(batch_size, "batch_size")
        self.dataset = dataset
        self.architecture = architecture
        self.batch_size = batch_size
        self.loss_bounds = 0.0, clipping_bound(_some_inputs(dataset) ** 2, "inputs")

    def init(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        shape = self.dataset.in_shape
        return init_model(self.architecture, shape, math.prod(shape), key=key)

    def reconstruct(
        self, params: PyTree[Array], inputs: Array
    ) -> Float[Array, "batch numbers"]:
        """The model's outputs for inputs in their storage type, each one flat."""
        x, shape = self.dataset.prepare(inputs), self.dataset.in_shape
        return apply_model(self.architecture, shape, (math.prod(shape),), params, x)

    def loss(
        self, params: PyTree[Array], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        inputs, _ = self.dataset[split].batch(self.batch_size, key=key)
        x = _flat(self.dataset.prepare(inputs))
        return jnp.mean((self.reconstruct(params, inputs) - x) ** 2)


class VariationalAutoencoding(AbstractTask):
    """The negative evidence lower bound for each of an input's $D$ numbers.

    $$l = \\frac{1}{B D} \\sum_b \\left( -\\log p(x_b \\mid z_b) +
    \\operatorname{KL}(N(\\mu_b, \\operatorname{diag} \\sigma_b^2) \\,\\|\\, N(0, I))
    \\right)$$

    The encoder maps $x_b$ to $\\mu_b$ and $\\log \\sigma_b^2$; the decoder maps the one
    sample $z_b = \\mu_b + \\sigma_b \\epsilon_b$ to the likelihood's parameters.

    Meta-training clips recorded losses at 1.5 times the loss of an output of zeros.

    ??? cite

        ```bibtex
        @inproceedings{kingma2014auto,
            title={Auto-Encoding Variational Bayes},
            author={Kingma, Diederik P. and Welling, Max},
            booktitle={International Conference on Learning Representations},
            year={2014},
        }
        ```
    """

    dataset: Dataset | RegressionDataset
    encoder: AbstractArchitecture
    decoder: AbstractArchitecture
    likelihood: AbstractLikelihood
    latent: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    loss_bounds: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self,
        dataset: Dataset | RegressionDataset,
        encoder: AbstractArchitecture = MLP((32,)),
        decoder: AbstractArchitecture = MLP((32,)),
        latent: int = 8,
        batch_size: int = 64,
        likelihood: AbstractLikelihood = BernoulliLikelihood(),
    ):
        """**Arguments:**

        - `dataset`: the data, of which only the inputs are used.
        - `encoder`: of the model that maps an input to `2 * latent` numbers.
        - `decoder`: of the model that maps `latent` numbers to as many as an input has.
        - `latent`: numbers in a code.
        - `batch_size`: examples in a minibatch, drawn with replacement.
        - `likelihood`: of an input, given the decoder's output: say
            [`equistar.tasks.BernoulliLikelihood`][], for inputs in $[0, 1]$, or
            [`equistar.tasks.GaussianLikelihood`][].

        **Raises:**

        `ValueError` if an argument is not of its kind, `latent` or `batch_size` is below 1,
        or inputs of a split are outside of the likelihood's support, or not finite.
        """
        check_kind(dataset, Dataset | RegressionDataset, "`dataset`", _DATA)
        check_kind(encoder, AbstractArchitecture, "`encoder`")
        check_kind(decoder, AbstractArchitecture, "`decoder`")
        check_kind(likelihood, AbstractLikelihood, "`likelihood`")
        latent = as_count(latent, "latent")
        batch_size = as_count(batch_size, "batch_size")
        self.dataset = dataset
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.latent = latent
        self.batch_size = batch_size
        x = _some_inputs(dataset)
        of_zeros = likelihood.negative_log(jnp.zeros_like(x), x)
        self.loss_bounds = 0.0, clipping_bound(of_zeros, "inputs")
        _check_support(dataset, likelihood)

    def init(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        encoder_key, decoder_key = jr.split(key)
        shape, latent = self.dataset.in_shape, self.latent
        return {
            "encoder": init_model(self.encoder, shape, 2 * latent, key=encoder_key),
            "decoder": init_model(
                self.decoder, (latent,), math.prod(shape), key=decoder_key
            ),
        }

    def encode(
        self, params: PyTree[Array], inputs: Array
    ) -> tuple[Float[Array, "batch latent"], Float[Array, "batch latent"]]:
        """The codes' means and log-variances for inputs in their storage type."""
        x, shape = self.dataset.prepare(inputs), self.dataset.in_shape
        code = apply_model(self.encoder, shape, (2 * self.latent,), params["encoder"], x)
        return code[:, : self.latent], code[:, self.latent :]

    def decode(
        self, params: PyTree[Array], code: Float[Array, "batch latent"]
    ) -> Float[Array, "batch numbers"]:
        """The likelihood's parameters for codes, each input flat."""
        shape = (math.prod(self.dataset.in_shape),)
        return apply_model(self.decoder, (self.latent,), shape, params["decoder"], code)

    def loss(
        self, params: PyTree[Array], *, key: PRNGKeyArray, split: Split = Split.TRAIN
    ) -> Float[Array, ""]:
        batch_key, noise_key = jr.split(key)
        inputs, _ = self.dataset[split].batch(self.batch_size, key=batch_key)
        x = _flat(self.dataset.prepare(inputs))
        mean, log_variance = self.encode(params, inputs)
        noise = jr.normal(noise_key, mean.shape, mean.dtype)
        outputs = self.decode(params, mean + jnp.exp(0.5 * log_variance) * noise)
        divergence = jnp.mean(_divergence(mean, log_variance))
        return jnp.mean(self.likelihood.negative_log(outputs, x)) + divergence / x.shape[1]


def _divergence(
    mean: Float[Array, "*batch latent"], log_variance: Float[Array, "*batch latent"]
) -> Float[Array, "*batch"]:
    """KL of the Gaussian from the standard Gaussian."""
    # exp(a) - 1 - a is at least 0 but cancels near 0.
    excess = jnp.expm1(log_variance) - log_variance
    return 0.5 * jnp.sum(mean**2 + excess, axis=-1)


def _flat(x: Float[Array, "batch ..."]) -> Float[Array, "batch numbers"]:
    return x.reshape(len(x), -1)


def _some_inputs(dataset: Dataset | RegressionDataset) -> Float[Array, "n ..."]:
    # As many as tell a mean well: all of them might not fit as floating-point numbers.
    # From everywhere, since they may be in an order.
    inputs = dataset[Split.TRAIN].inputs
    return dataset.prepare(inputs[:: math.ceil(len(inputs) / 4096)])


def _check_support(
    dataset: Dataset | RegressionDataset, likelihood: AbstractLikelihood
) -> None:
    low, high = likelihood.support
    for split in Split:
        inputs = dataset[split].inputs
        least, most = sorted(dataset.scale * float(x) for x in (inputs.min(), inputs.max()))
        # A scale such as 1/255 is rounded. NaN is in no interval.
        if not (low - 1e-6 <= least and most <= high + 1e-6):
            raise ValueError(
                f"The likelihood is for inputs in [{low:g}, {high:g}]; those of "
                f"'{split.value}' are in [{least:g}, {most:g}]. Scale the data set, or use "
                "`likelihood=GaussianLikelihood()`."
            )
