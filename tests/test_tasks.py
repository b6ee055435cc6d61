"""Every task: its parameters, its loss at the start, and that training lowers it."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar import tasks


def _count(task):
    params = jax.eval_shape(lambda: task.init(key=jr.key(0)))
    return sum(p.size for p in jtu.tree_leaves(params))


def _line():
    x = np.linspace(-1, 1, 40)[:, None]
    return tasks.regression_from_arrays(x, 2 * x[:, 0])


def _wine():
    return tasks.Classification(tasks.wine(), tasks.MLP(()))


def _language(architecture):
    tokens = np.arange(400, dtype=np.uint8) % 7
    text = tasks.text_from_tokens(tokens)
    return tasks.LanguageModelling(text, architecture, length=6, batch_size=8)


def _digits_task(architecture):
    return tasks.Classification(tasks.digits(), architecture, batch_size=32)


VISION = {
    "convnet": tasks.digits_convnet,
    "resnet": lambda: _digits_task(tasks.ResNet((4, 8))),
    "vision transformer": lambda: _digits_task(tasks.VisionTransformer(4, 8, 1, 2)),
    "auto-encoder": lambda: tasks.Autoencoding(tasks.digits(), tasks.MLP((8,))),
    "variational auto-encoder": lambda: tasks.VariationalAutoencoding(
        tasks.digits(), tasks.MLP((8,)), tasks.MLP((8,)), latent=2
    ),
    "variational auto-encoder, Gaussian": lambda: tasks.VariationalAutoencoding(
        tasks.digits(),
        tasks.MLP((8,)),
        tasks.MLP(()),
        latent=2,
        likelihood=tasks.GaussianLikelihood(0.1),
    ),
}


TASKS = {
    **VISION,
    "mlp": lambda: tasks.Classification(tasks.digits(), tasks.MLP((16,))),
    "mlp, tanh, layer norm": lambda: tasks.Classification(
        tasks.digits(), tasks.MLP((16,), jnp.tanh, tasks.LayerNorm())
    ),
    "mlp, minibatch norm": lambda: tasks.Classification(
        tasks.digits(), tasks.MLP((16, 16), norm=tasks.MinibatchNorm())
    ),
    "logistic": lambda: tasks.Classification(tasks.digits(), tasks.MLP(())),
    "regression": lambda: tasks.Regression(_line(), tasks.MLP((8,))),
    "lstm": lambda: _language(tasks.Recurrent(tasks.LSTM(), 16, 8)),
    "gru": lambda: _language(tasks.Recurrent(tasks.GRU(), 16, 8)),
    "rnn": lambda: _language(tasks.Recurrent(tasks.VanillaRNN(), 16, 8)),
    "transformer": lambda: _language(tasks.Transformer(1, 16, 2)),
    "breast cancer": lambda: tasks.Classification(tasks.breast_cancer(), tasks.MLP((8,))),
    "wine": lambda: tasks.Classification(tasks.wine(), tasks.MLP((8,))),
    "diabetes": lambda: tasks.Regression(tasks.diabetes(), tasks.MLP((8,))),
    "photograph": lambda: tasks.Regression(tasks.photograph(), tasks.FourierMLP((16,))),
    "linear teacher": lambda: tasks.LinearTeacher(jnp.ones(4), key=jr.key(0)),
    "rosenbrock": lambda: tasks.Rosenbrock(3),
    "reparametrised": lambda: tasks.Reparametrised(_wine(), 0.3, 3.0, key=jr.key(0)),
    "low precision": lambda: tasks.LowPrecision(_wine()),
    "gradient by ES": lambda: tasks.ESGradient(_wine(), pairs=8),
    "label noise": lambda: tasks.Classification(
        tasks.with_label_noise(tasks.wine(), 0.3), tasks.MLP(())
    ),
}


@pytest.fixture(scope="module", params=TASKS, ids=lambda n: n)
def task(request):
    return TASKS[request.param]()


def test_training_lowers_the_loss(task):
    optimizer = eqs.OptaxOptimizer(optax.adam, learning_rate=1e-2)
    result = eqs.train(task, optimizer, steps=60, key=jr.key(0))
    losses = np.asarray(result.losses)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_parameters_are_floating_point_arrays_and_losses_scalars_on_every_split(task):
    params = task.init(key=jr.key(0))
    assert all(jnp.issubdtype(p.dtype, jnp.floating) for p in jtu.tree_leaves(params))
    for split in tasks.Split:
        loss = task.loss(params, key=jr.key(1), split=split)
        assert loss.shape == () and np.isfinite(loss)
        assert task.loss_bounds[0] <= loss <= 10 * task.loss_bounds[1]


def test_minibatch_norm_takes_the_statistics_of_the_minibatch():
    task = TASKS["mlp, minibatch norm"]()
    params = task.init(key=jr.key(0))
    inputs = task.dataset[tasks.Split.TRAIN].inputs[:8]
    whole = task.logits(params, inputs)
    # An example's scores depend on its neighbours, but not on their order.
    np.testing.assert_allclose(task.logits(params, inputs[::-1])[::-1], whole, rtol=1e-9)
    assert np.abs(task.logits(params, inputs[:4]) - whole[:4]).max() > 1e-3


def test_the_papers_mlp_has_as_many_parameters_as_it_says():
    images = np.zeros((10, 28, 28), np.uint8)
    data = tasks.dataset_from_arrays(images, np.arange(10), scale=1 / 255)
    assert _count(tasks.Classification(data, tasks.MLP((128, 128)), 128)) == 118_282


# As a caller without a type checker has it.
untyped: Any = tasks


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: untyped.Classification(untyped.diabetes()),
            r"`dataset` must be .*dataset_from_arrays\(.*got RegressionDataset",
        ),
        (
            lambda: untyped.Regression(untyped.wine()),
            r"`dataset` must be .*regression_from_arrays\(.*got Dataset",
        ),
        (lambda: untyped.Classification(untyped.wine(), untyped.MLP), r"pass `MLP\(\)`"),
    ],
)
def test_what_a_task_is_made_of_is_named(as_users_call, make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_architecture_is_static():
    # So that stacked tasks of one architecture are one task with a leading axis.
    architecture = tasks.MLP((8, 8), norm=tasks.LayerNorm())
    assert not jtu.tree_leaves(architecture) and hash(architecture) == hash(
        tasks.MLP((8, 8), norm=tasks.LayerNorm())
    )
