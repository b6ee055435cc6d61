"""Recipes: what they make, and that a file holds all of it."""

import dataclasses
import json
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar._recipes import (
    EstimatorRecipe,
    NAMED_RECIPES,
    OptimizerRecipe,
    OuterRecipe,
    read_recipe,
    Recipe,
    recipe_text,
    TasksRecipe,
)


OTHER = Recipe(
    OptimizerRecipe("hyperparam", nominal="sgd", width=5, hold=("network",)),
    TasksRecipe((), ("quadratics",), 3, (2.0,), (3.0,), "normalised", 9.0, "validation", 7),
    EstimatorRecipe("nres", 3, 2, 0.5, 9, 2, "final"),
    OuterRecipe(0.3, "cosine", 2, 0.1, 0.5, "everything", 2.0, "norm"),
    steps=7,
    seed=3,
)


@pytest.mark.parametrize("name", NAMED_RECIPES)
def test_named_recipes_make_sense_and_files_hold_them_whole(name, tmp_path):
    recipe, path = NAMED_RECIPES[name].recipe, tmp_path / "recipe.json"
    recipe.check()
    path.write_text(recipe_text(recipe))
    assert read_recipe(path) == recipe


def test_a_file_holds_every_setting(tmp_path):
    # No setting of this one is at its default.
    default, path = Recipe().settings(), tmp_path / "recipe.json"
    same = {k for k, v in OTHER.settings().items() if v == default[k]}
    assert same == {
        *("preconditioner", "magnitudes", "aggregation", "direction_init", "start_from"),
        *("nominal_scale", "blackbox_scale", "magnitude_scale"),
    }
    optimizer = OptimizerRecipe(
        "blackbox", "none", "rms", "fixed", "tensor", "release", 1.0, 2.0, 3.0, 4, "x"
    )
    for recipe in (OTHER, replace(OTHER, optimizer=optimizer)):
        path.write_text(recipe_text(recipe))
        assert read_recipe(path) == recipe


def test_settings_have_names_of_their_own():
    # They are flags without a prefix.
    groups = [f for f in dataclasses.fields(Recipe) if f.name not in ("steps", "seed")]
    names = [g.name for f in groups for g in dataclasses.fields(getattr(OTHER, f.name))]
    assert len(names) + 2 == len(set(names) | {"steps", "seed"}) == len(OTHER.settings())


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "no recipe in JSON"),
        ("[]", "needs settings by name"),
        ('{"outer": {"clip": 1, "clip": 2}}', "has 'clip' twice"),
        ('{"estimatr": {}}', r"'estimatr'.*'estimator'"),
        ('{"estimator": {"windw": 3}}', r"'estimator\.windw'.*'estimator\.window'"),
        ('{"estimator": 3}', "needs in 'estimator' settings"),
        ('{"estimator": {"window": 3.5}}', r"'estimator\.window' must be a whole number"),
        ('{"estimator": {"window": true}}', "must be a whole number; got True"),
        ('{"estimator": {"sigma": "1"}}', "must be a number; got '1'"),
        ('{"estimator": {"estimator": "magic"}}', "must be one of .*'pes'"),
        ('{"tasks": {"task": "digits_mlp"}}', "must be a list"),
        ('{"tasks": {"task": [1]}}', "must be text"),
    ],
)
def test_wrong_files_are_refused_in_one_sentence(tmp_path, text, message):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(path)


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(recipe_text(OTHER), "utf-8-sig")
    assert read_recipe(path) == OTHER


def test_what_a_file_leaves_out_has_its_default(tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"outer": {"learning_rate": 1}, "steps": 3}))
    assert read_recipe(path) == Recipe(outer=OuterRecipe(learning_rate=1.0), steps=3)


def _made(**settings):
    return OptimizerRecipe(**settings).build(key=jr.key(0))


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, eqs.STAR(key=jr.key(0))),
        ({"optimizer": "blackbox"}, eqs.Blackbox(key=jr.key(0))),
        ({"optimizer": "hyperparam"}, eqs.HyperparamController(key=jr.key(0))),
        (
            {"preconditioner": "none"},
            eqs.STAR(preconditioner=eqs.NoPreconditioner(), key=jr.key(0)),
        ),
        (
            {"nominal": "none"},
            eqs.Blackbox(preconditioner=eqs.EMAPreconditioner(), key=jr.key(0)),
        ),
        (
            {"nominal": "sgdm", "width": 3, "nominal_scale": 0.5, "blackbox_scale": 0.1},
            eqs.STAR(
                direction=eqs.MomentumDirection(),
                width=3,
                nominal_scale=0.5,
                blackbox_scale=0.1,
                key=jr.key(0),
            ),
        ),
        (
            {"direction_init": "release", "aggregation": "tensor", "magnitude_scale": 0.1},
            eqs.STAR(
                direction_init=eqs.release_init,
                aggregation=eqs.PerTensor(),
                magnitude_scale=0.1,
                key=jr.key(0),
            ),
        ),
    ],
)
def test_optimizers_are_made_of_the_parts_that_are_named(settings, expected):
    assert eqx.tree_equal(_made(**settings), expected)


def test_fixed_magnitudes_are_not_learned_and_saved_so(tmp_path):
    # Each of the two heads had four weights and a bias.
    fixed = _made(magnitudes="fixed")
    assert eqs.count_learned(fixed) == eqs.count_learned(_made()) - 10
    eqs.save(tmp_path / "fixed.npz", fixed, {})
    again = _made(start_from=str(tmp_path / "fixed.npz"))
    assert eqx.tree_equal(again, fixed)
    # A nominal term alone has no network: what AdamAggMo reads has four decays.
    alone: Any = _made(optimizer="hyperparam", magnitudes="fixed", nominal="adam-aggmo")
    assert eqs.count_learned(alone) == 4 and isinstance(alone.network, eqs.NoNetwork)


def test_parts_that_are_held_are_not_trainable():
    recipe = OptimizerRecipe(hold=("network", "accumulators"))
    star: Any = recipe.build(key=jr.key(0))
    trained = eqx.filter(star, recipe.trainable(star))
    heads = eqs.count_learned(star.blackbox) + eqs.count_learned(star.nominal)
    assert eqs.count_learned(trained) == heads == 15


def test_tasks_are_mixed_with_their_weights():
    recipe = TasksRecipe(
        ("quadratic", "rosenbrock"), ("quadratics",), 2, task_weights=(1.0, 2.0, 5.0)
    )
    with recipe.unroll(key=jr.key(0)) as mixture:
        pass
    assert isinstance(mixture, eqs.Mixture)
    # The instances of a family share its weight.
    np.testing.assert_allclose(mixture.weights, [1 / 8, 2 / 8, 2.5 / 8, 2.5 / 8])
    assert recipe.labels == ("quadratic", "rosenbrock", "quadratics_1", "quadratics_2")
    assert isinstance(mixture.combination, eqs.WeightedMean)
    unrolls: Any = mixture.at(0)
    drawn = [unroll.task for unroll in unrolls[2:]]
    assert drawn[0].curvature.shape != drawn[1].curvature.shape


def test_losses_of_tasks_are_relative_to_their_references():
    recipe = TasksRecipe(
        ("quadratic", "rosenbrock"), ("quadratics",), 2, references=(3.0, 1.0, 5.0)
    )
    mixture: Any
    with recipe.unroll(key=jr.key(0)) as mixture:
        quadratic, rosenbrock, *drawn = mixture.at(0)
    assert isinstance(quadratic, eqs.Relative) and quadratic.reference == 3
    assert isinstance(rosenbrock, eqs.InnerTraining)
    # The instances of a family have the same one.
    assert [unroll.reference for unroll in drawn] == [5.0, 5.0]
    with pytest.raises(ValueError, match=r"which has 2: .* --references anew"):
        TasksRecipe(("quadratic",), references=(1.0, 2.0)).check()
    wrong = "`task_weights`, which has 3 and `references`, which has 2"
    with pytest.raises(ValueError, match=wrong):
        TasksRecipe(("quadratic",), task_weights=(1.0,) * 3, references=(1.0, 2.0)).check()
    with pytest.raises(ValueError, match="`references` must be positive"):
        TasksRecipe(("quadratic",), references=(0.0,)).check()


def test_an_excess_needs_references():
    excess = Recipe(estimator=EstimatorRecipe("full-es", objective="excess"))
    with pytest.raises(ValueError, match="give each task one by --references"):
        excess.check()
    replace(excess, tasks=TasksRecipe(references=(0.1,))).check()


def test_tasks_are_seen_in_other_units():
    recipe = TasksRecipe(("quadratic",), reparametrise=100.0)
    unroll: Any
    with recipe.unroll(key=jr.key(0)) as unroll:
        scaled = unroll.task
    assert isinstance(scaled, eqs.tasks.Reparametrised)
    assert eqx.tree_equal(scaled.task, eqs.tasks.named("quadratic"))
    assert eqx.tree_equal(scaled, recipe.build(key=jr.key(0))[0])
    (scale,) = jtu.tree_leaves(scaled.scales)
    assert 0.01 <= scale <= 100 and scale != 1


def test_a_task_given_twice_is_refused():
    with pytest.raises(ValueError, match="given twice"):
        TasksRecipe(("quadratic", "quadratic")).check()


def test_data_larger_than_the_device_are_refilled(monkeypatch):
    spectra = np.arange(1.0, 13.0).reshape(6, 2)
    streamed = eqs.tasks.StreamedTask(
        lambda ahead: eqs.tasks.Slabs(spectra, 1, lambda slab: slab[0], ahead=ahead),
        lambda spectrum: eqs.tasks.Quadratic(jnp.asarray(spectrum)),
    )
    monkeypatch.setitem(eqs.tasks.STREAMED, "large", streamed)
    monkeypatch.setitem(eqs.tasks.NAMED, "large", streamed.first)
    recipe = TasksRecipe(
        ("quadratic", "large"), references=(1.0, 2.0), reparametrise=10.0, refill_every=2
    )
    mixture: Any
    with recipe.unroll(key=jr.key(0)) as mixture:
        assert mixture.at(0)[1].reference == 2
        large = [mixture.at(step)[1].unroll.task for step in range(12)]
        assert isinstance(mixture.at(0)[0].task, eqs.tasks.Reparametrised)
    seen = [tuple(np.asarray(task.task.curvature)) for task in large]
    assert seen[::2] == seen[1::2] and sorted(seen[::2]) == sorted(map(tuple, spectra))
    # In the same other units throughout, which are those of an evaluation, too.
    held: Any = recipe.build(key=jr.key(0))[1]
    for task in large:
        assert eqx.tree_equal(task.scales, held.scales)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("pes", eqs.PES(3, 2, 0.5, 9)),
        ("nres", eqs.NRES(3, 2, 0.5, 9)),
        ("pes-analytic", eqs.PESAnalytic(3, 2, 0.5, 9)),
        ("truncated-es", eqs.TruncatedES(3, 2, 0.5, 9)),
        ("full-es", eqs.FullES(9, 2, 0.5)),
        ("truncated-backprop", eqs.TruncatedBackprop(3, 2, 9)),
        ("full-backprop", eqs.FullBackprop(9, 2)),
    ],
)
def test_estimators_have_the_settings(name, expected):
    assert EstimatorRecipe(name, 3, 2, 0.5, 9).build() == expected


def test_lengths_and_objectives_are_chosen():
    drawn = EstimatorRecipe(length=9, shortest=2, objective="log-final").build()
    assert drawn == eqs.PES(length=eqs.LogUniformLength(2, 9), objective=eqs.LogFinalLoss())


def _updates(outer, theta, gradients):
    state = outer.init(theta)
    made = []
    for gradient in gradients:
        with jax.numpy_dtype_promotion("standard"):
            updates, state = outer.update(gradient, state, theta)
        made.append(updates)
    return made


def _gradients(theta, sizes):
    return [jtu.tree_map(lambda p, s=s: jnp.full_like(p, s), theta) for s in sizes]


def test_the_papers_outer_optimizer_is_the_default_one():
    star = _made()
    gradients = _gradients(star, [0.5, -3.0])
    ours = _updates(NAMED_RECIPES["star-paper"].recipe.outer.build(10), star, gradients)
    assert eqx.tree_equal(ours, _updates(eqs.default_outer(1e-4, 0.1), star, gradients))


@pytest.mark.parametrize("clip_by", ["element", "norm"])
@pytest.mark.parametrize("decay", ["blackbox", "everything"])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_the_outer_optimizer_is_the_same_chain_in_every_release(clip_by, decay, schedule):
    # In what is saved of a run is its state, which any other chain would not take.
    rate = {"constant": 0.3, "cosine": optax.cosine_decay_schedule(0.3, 4, 0.1)}[schedule]
    clip = {"element": optax.clip, "norm": optax.clip_by_global_norm}[clip_by]
    mask = eqs.blackbox_mask if decay == "blackbox" else None
    theirs = optax.chain(clip(0.7), optax.adamw(rate, weight_decay=0.5, mask=mask))
    recipe = OuterRecipe(0.3, schedule, 0, 0.1, 0.5, decay, 0.7, clip_by)
    ours = recipe.build(4)
    star: Any = _made()
    gradients = _gradients(star, [0.5, -3.0])
    states = [jtu.tree_structure(outer.init(star)) for outer in (ours, theirs)]
    assert states[0] == states[1]
    made = [_updates(outer, star, gradients) for outer in (ours, theirs)]
    assert eqx.tree_equal(*made)
    own = eqs.default_outer(rate, 0.5, 0.7, clip_by=clip, mask=mask)
    assert eqx.tree_equal(made[0], _updates(own, star, gradients))


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": -1.0},
        {"learning_rate": -1.0, "schedule": "cosine"},
        {"final_rate": np.inf},
        {"weight_decay": np.nan},
        {"clip": 0.0},
        {"warm_up": -1},
        {"warm_up": 9, "schedule": "cosine"},
    ],
)
def test_numbers_of_the_outer_optimizer_that_make_no_sense_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        Recipe(outer=OuterRecipe(**wrong), steps=9).check()


# Adam of equal gradients moves by the learning rate itself, whatever their size.
@pytest.mark.parametrize(
    "settings, rates",
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"warm_up": 2}, [0, 0.5, 1, 1, 1]),
        # (1 + cos(pi n / 4)) / 2 of the nine tenths that go.
        ({"schedule": "cosine", "final_rate": 0.1}, [1, 0.868198, 0.55, 0.231802, 0.1]),
        ({"schedule": "cosine", "warm_up": 2, "final_rate": 0.0}, [0, 0.5, 1, 0.5, 0]),
    ],
)
def test_learning_rates_follow_the_schedule(settings, rates):
    outer = OuterRecipe(2.0, weight_decay=0.0, **settings).build(4)
    theta = jnp.zeros(1)
    made = _updates(outer, theta, _gradients(theta, [0.5] * 5))
    moved = -np.concatenate(made) / 2
    np.testing.assert_allclose(moved, rates, rtol=1e-5, atol=1e-6)


def test_everything_decays_when_asked_and_gradients_are_clipped_by_norm():
    star = _made()
    ones = jtu.tree_map(jnp.ones_like, star)
    nothing = _gradients(star, [0.0])
    decayed = {
        name: eqs.count_learned(
            eqx.filter(moved, lambda x: bool(jnp.all(jnp.asarray(x) != 0)))
        )
        for name in ("blackbox", "everything")
        for moved in _updates(OuterRecipe(decay=name).build(1), ones, nothing)
    }
    # All but the nominal head's 5 and the decays of momentum, rms and factored moments.
    assert decayed == {"blackbox": 190, "everything": 202}
    # A norm of 5 becomes 1, and the first moment is a tenth of it; by elements 3 and 4
    # would both be 1.
    outer = OuterRecipe(clip_by="norm").build(1)
    pair = {"a": jnp.asarray(3.0), "b": jnp.asarray(4.0)}
    with jax.numpy_dtype_promotion("standard"):
        state = outer.update(pair, outer.init(pair), pair)[1]
    moments = jtu.tree_leaves(eqx.filter(state, eqx.is_inexact_array))
    np.testing.assert_allclose(moments[:2], [0.06, 0.08], rtol=1e-6)
