"""The optimizers in the package load, say how they were made, and train."""

import json
import pathlib
import shlex

import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import optax
import pytest

import equistar as eqs
from equistar._cli import main
from equistar._inner_training import training_curves
from equistar._recipes import NAMED_RECIPES, Recipe


EXPECTED = "blackbox", "hyperparam", "star", "star-best", "star-wd05"
every_name = pytest.mark.parametrize("name", EXPECTED)


def test_their_names_are_listed():
    assert eqs.PRETRAINED == EXPECTED


@every_name
def test_each_says_how_it_was_made_and_how_well_it_does(name):
    provenance = eqs.pretrained_provenance(name)
    command = shlex.split(provenance["command"])
    assert command[:2] == ["equistar", "meta-train"]
    # The recipe of that name still makes this very run: settings that there were not yet
    # are at their defaults.
    recipe = NAMED_RECIPES[command[2]].recipe
    in_json = lambda settings: json.loads(json.dumps(settings))
    made_with = in_json(Recipe().settings()) | provenance["settings"]
    assert made_with == in_json(recipe.settings())
    assert provenance["meta_steps"] == recipe.steps
    assert len(provenance["meta_training_curve"]) == 40
    tasks = {row["task"]: row for row in provenance["evaluation"]["tasks"]}
    assert len(tasks) >= 16 and "digits_mlp" in tasks


@every_name
def test_each_was_made_within_an_hour(name):
    assert eqs.pretrained_provenance(name)["hours"] < 1


@every_name
def test_each_is_a_few_kilobytes_and_needs_no_part_of_its_users(name):
    optimizer = eqs.load_pretrained(name)
    assert isinstance(optimizer, eqs.AbstractOptimizer)
    path = pathlib.Path(eqs.__file__).parent / "_weights" / f"{name}.npz"
    assert path.stat().st_size < 16_000


def test_the_best_one_trains_a_network_it_has_not_seen():
    task = eqs.tasks.Classification(eqs.tasks.wine(), eqs.tasks.MLP((20,)), 32)
    keys = jr.split(jr.key(5), 3)
    best = eqs.load_pretrained()
    curves = np.asarray(training_curves(task, best, steps=300, keys=keys))
    adam = eqs.OptaxOptimizer(optax.adam, learning_rate=1e-3)
    others = np.asarray(training_curves(task, adam, steps=300, keys=keys))
    assert np.all(np.isfinite(curves)) and curves.mean() < 0.5 * others.mean()


def test_it_is_in_an_optax_chain_in_one_line():
    optim = optax.chain(optax.clip(1.0), eqs.as_optax(eqs.load_pretrained("star-best")))
    params = {"w": jnp.ones((3, 2))}
    state = optim.init(params)
    updates, _ = optim.update(params, state, params)
    (update,) = jtu.tree_leaves(updates)
    assert update.shape == (3, 2) and np.all(np.asarray(update) < 0)


def test_wrong_names_list_the_right_ones():
    with pytest.raises(ValueError, match=r"choose one of .*'star-best'"):
        eqs.load_pretrained("sgd")


def _run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["equistar", *map(str, arguments)])
    with pytest.raises(SystemExit) as e:
        main()
    return e.value.code or 0


def test_info_shows_and_lists_them(monkeypatch, capsys):
    assert _run(monkeypatch, "info") == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in EXPECTED)
    assert _run(monkeypatch, "info", "star") == 0
    shown = capsys.readouterr().out
    assert "star-small" in shown and "loss / tuned Adam's" in shown


def test_commands_take_their_names_and_files_come_first(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments = "--task", "digits_logistic", "--steps", 3, "--seeds", 1
    assert _run(monkeypatch, "train", "hyperparam", *arguments) == 0
    assert "hyperparam" in capsys.readouterr().out
    eqs.save(tmp_path / "star", eqs.Blackbox(key=jr.key(0)))
    assert _run(monkeypatch, "info", "star") == 0
    assert "Blackbox" in capsys.readouterr().out
    assert _run(monkeypatch, "train", "nothing") == 1
    assert "which are pretrained" in capsys.readouterr().err
