"""The architectures: how many parameters, what their parts compute, what they refuse."""

import math
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest

from equistar import tasks
from equistar.tasks._architectures._attention import Block
from equistar.tasks._architectures._convolution import Convolution
from equistar.tasks._architectures._resnet import _Block
from equistar.tasks._architectures._vision_transformer import _patches
from equistar.tasks._autoencoding import _divergence


def _count(architecture, in_shape, out_size):
    build = lambda key: architecture.build(in_shape, out_size, key=key)
    model = eqx.filter_eval_shape(build, jr.key(0))
    shapes = eqx.filter(model, lambda x: isinstance(x, jax.ShapeDtypeStruct))
    return sum(math.prod(s.shape) for s in jtu.tree_leaves(shapes))


def _zeros(tree):
    return jtu.tree_map(lambda x: jnp.zeros_like(x) if eqx.is_array(x) else x, tree)


class _Permuted(tasks.AbstractArchitecture):
    library: types.ModuleType = eqx.field(static=True)

    def build(self, in_shape, out_size, *, key):
        layer = eqx.nn.Linear(math.prod(in_shape), out_size, key=key)
        return _Permuting(layer, self.library.arange(math.prod(in_shape))[::-1])


class _Permuting(eqx.Module):
    layer: eqx.nn.Linear
    order: jax.Array | np.ndarray

    def __call__(self, x):
        return self.layer(x.reshape(-1)[self.order])


@pytest.mark.parametrize("library", [jnp, np], ids=["jax", "numpy"])
def test_arrays_that_are_no_parameters_are_used(library):
    model = _Permuted(library)
    data = tasks.dataset_from_arrays(np.arange(40.0).reshape(20, 2), np.arange(20) % 2)
    task = tasks.Classification(data, model)
    params = task.init(key=jr.key(0))
    assert [p.shape for p in jtu.tree_leaves(params)] == [(2, 2), (2,)]
    x = jnp.array([[3.0, 5.0]])
    expected = params.layer.weight @ x[0, ::-1] + params.layer.bias
    np.testing.assert_allclose(
        eqx.filter_jit(task.logits)(params, x)[0], expected, rtol=1e-12
    )


def test_the_papers_convnet_has_as_many_parameters_as_its_layers():
    first, second, third = 9 * 3 * 32 + 32, 9 * 32 * 64 + 64, 9 * 64 * 64 + 64
    head = 64 * 10 + 10
    expected = first + second + third + head  # = 56,970
    assert _count(tasks.ConvNet(), (32, 32, 3), 10) == expected


def test_a_resnet_has_as_many_parameters_as_its_layers():
    # A convolution of c to d channels, and its norm's scale and offset.
    layer = lambda c, d: 9 * c * d + d + 2 * d
    stem, stage = layer(1, 4), 4 * layer(4, 4)
    # The second stage's first block widens and has a 1x1 convolution for a shortcut.
    widening = layer(4, 8) + layer(8, 8) + (4 * 8 + 8)
    expected = stem + stage + widening + 2 * layer(8, 8) + (8 * 10 + 10)
    assert _count(tasks.ResNet((4, 8), blocks=2), (8, 8), 10) == expected


def test_a_vision_transformer_has_as_many_parameters_as_its_layers():
    width, length, patch = 8, 4, 4 * 4 * 3
    attention, mlp = 4 * width**2, 2 * 4 * width**2 + 4 * width + width
    block = attention + mlp + 2 * 2 * width  # Two layer norms.
    embed, positions = patch * width + width, length * width
    expected = embed + positions + 3 * block + 2 * width + (width * 10 + 10)
    architecture = tasks.VisionTransformer(patch=4, width=width, depth=3, heads=2)
    assert _count(architecture, (8, 8, 3), 10) == expected


@pytest.mark.parametrize(
    "kernel, stride, size", [(3, 1, 5), (3, 2, 8), (2, 3, 7), (1, 2, 4)]
)
def test_a_convolution_is_that_of_equinox(kernel, stride, size):
    convolution = Convolution(2, 3, kernel, stride, key=jr.key(0))
    x = jr.normal(jr.key(1), (2, size, size + 1))
    expected = convolution.convolution(x)
    # Two orders of summation over at most 18 terms.
    np.testing.assert_allclose(convolution(x), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    "architecture",
    [
        tasks.ConvNet((2,), (2,)),
        tasks.ResNet((2,), norm=tasks.NoNorm()),
        tasks.VisionTransformer(2, 2, 1, 1),
    ],
    ids=lambda a: type(a).__name__,
)
def test_a_grey_image_needs_no_channels(architecture):
    model = architecture.build((4, 4), 3, key=jr.key(0))
    x = jr.normal(jr.key(1), (4, 4))
    assert model(x).shape == (3,)
    np.testing.assert_array_equal(model(x), model(x[:, :, None]))


def test_a_residual_block_of_zero_weights_is_the_identity_of_positive_inputs():
    block = _Block(2, 2, 1, tasks.NoNorm(), key=jr.key(0))
    block = eqx.tree_at(lambda b: b.second, block, replace_fn=_zeros)
    x = jr.uniform(jr.key(1), (2, 3, 3))
    np.testing.assert_array_equal(block(x), x)


def test_patches_are_squares_of_the_image_row_by_row():
    image = np.arange(4 * 6).reshape(4, 6).astype(float)
    patches = _patches(jnp.asarray(image), 2)
    assert patches.shape == (6, 4)
    np.testing.assert_array_equal(patches[1], image[:2, 2:4].ravel())
    np.testing.assert_array_equal(patches[3], image[2:, :2].ravel())


def test_a_causal_block_sees_no_later_position():
    x = jr.normal(jr.key(1), (5, 4))
    changed = x.at[3, 0].add(1.0)
    causal = Block(4, 2, causal=True, key=jr.key(0))
    difference = jnp.abs(causal(x) - causal(changed)).max(axis=1)
    assert np.all(difference[:3] == 0) and np.all(difference[3:] > 0)
    # Without the mask every position sees the change.
    every = Block(4, 2, key=jr.key(0))
    assert np.all(jnp.abs(every(x) - every(changed)).max(axis=1) > 0)


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 4, 4), np.uint8)
SMALL = tasks.dataset_from_arrays(IMAGES, np.arange(20) % 2, scale=1 / 255)


def test_an_autoencoder_that_is_the_identity_has_no_loss():
    task = tasks.Autoencoding(SMALL, tasks.MLP(()), batch_size=4)
    params = task.init(key=jr.key(0))
    layer = lambda p: p.layers[0]
    params = eqx.tree_at(lambda p: layer(p).weight, params, jnp.eye(16))
    params = eqx.tree_at(lambda p: layer(p).bias, params, jnp.zeros(16))
    assert task.loss(params, key=jr.key(1)) == 0


def test_an_autoencoder_is_clipped_at_three_halves_of_the_loss_of_zeros():
    task = tasks.Autoencoding(SMALL, tasks.MLP(()), batch_size=4)
    train = np.asarray(SMALL[tasks.Split.TRAIN].inputs) / 255
    assert task.loss_bounds == (0, pytest.approx(1.5 * np.mean(train**2)))


def test_the_divergence_is_that_of_samples():
    mean, log_variance = jnp.array([0.5, -1.0]), jnp.array([-1.0, 0.3])
    deviation = jnp.exp(0.5 * log_variance)
    noise = jr.normal(jr.key(0), (100_000, 2))
    z = mean[None] + deviation[None] * noise
    # log N(z; mean, deviation) - log N(z; 0, 1), of which the constants cancel.
    ratios = jnp.sum(0.5 * (z**2 - noise**2 - log_variance[None]), axis=1)
    deviations = jnp.std(ratios) / math.sqrt(len(z))
    assert abs(jnp.mean(ratios) - _divergence(mean, log_variance)) < 4 * deviations


def test_a_variational_autoencoder_of_zero_weights_has_the_loss_of_zeros():
    task = tasks.VariationalAutoencoding(SMALL, tasks.MLP(()), tasks.MLP(()), 2, 4)
    params = _zeros(task.init(key=jr.key(0)))
    # Codes are standard Gaussian, without divergence; each logit is 0.
    assert task.loss(params, key=jr.key(1)) == pytest.approx(math.log(2))
    assert task.loss_bounds == (0, pytest.approx(1.5 * math.log(2)))
    # A bias m of one code number's mean adds m^2 / 2, shared by 16 inputs.
    bias = lambda p: p["encoder"].layers[0].bias
    params = eqx.tree_at(bias, params, jnp.array([0.0, 3.0, 0.0, 0.0]))
    expected = math.log(2) + 0.5 * 9 / 16
    assert task.loss(params, key=jr.key(1)) == pytest.approx(expected)


def test_a_gaussian_likelihood_is_half_the_squared_error_in_units_of_its_variance():
    loss = tasks.GaussianLikelihood(0.5).negative_log(jnp.array([1.0]), jnp.array([2.0]))
    np.testing.assert_allclose(loss, 0.5 * (1 / 0.5) ** 2)


def _build(architecture, in_shape):
    return lambda: architecture.build(in_shape, 10, key=jr.key(0))


COUNTS = tasks.dataset_from_arrays(IMAGES, np.arange(20) % 2)

REFUSED = {
    "flat inputs, ConvNet": (_build(tasks.ConvNet(), (64,)), "must be images.*Reshape"),
    "flat inputs, ResNet": (_build(tasks.ResNet(), (64,)), "must be images.*Reshape"),
    "flat inputs, ViT": (_build(tasks.VisionTransformer(), (64,)), "must be images"),
    "an image smaller than a patch": (
        _build(tasks.VisionTransformer(patch=4), (2, 2)),
        "2x2 do not divide .* side 4: choose a `patch`",
    ),
    "heads that do not divide the width": (
        lambda: tasks.VisionTransformer(width=10, heads=4),
        "`width` must be a multiple of `heads`",
    ),
    "a transformer of no blocks": (
        lambda: tasks.VisionTransformer(depth=0),
        "`depth` must be a whole number of at least 1",
    ),
    "a stride too few": (
        lambda: tasks.ConvNet((8, 8), (1,)),
        "`channels` and `strides` must be equally long",
    ),
    "no channels": (lambda: tasks.ConvNet((0,), (1,)), "`channels` must be .* at least 1"),
    "a resnet of no stages": (lambda: tasks.ResNet(()), "one number for each stage"),
    "Bernoulli of counts": (
        lambda: tasks.VariationalAutoencoding(COUNTS),
        r"inputs in \[0, 1\].*Scale the data set",
    ),
    "no codes": (
        lambda: tasks.VariationalAutoencoding(SMALL, latent=0),
        "`latent` must be a whole number of at least 1",
    ),
    "an empty minibatch": (
        lambda: tasks.Autoencoding(SMALL, batch_size=0),
        "`batch_size` must be a whole number of at least 1",
    ),
    "no deviation": (lambda: tasks.GaussianLikelihood(0.0), "must be positive"),
}


@pytest.mark.parametrize("make, message", REFUSED.values(), ids=REFUSED)
def test_a_bad_setting_is_refused_with_the_remedy(make, message):
    with pytest.raises(ValueError, match=message):
        make()
