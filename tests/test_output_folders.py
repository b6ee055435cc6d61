"""What commands do to the folders that they write into, and to whoever reads along."""

import os
import re
import subprocess
import sys
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
import pytest

import equistar as eqs
from equistar import plot
from equistar._files import locked

from .helpers import run_command as _run


EVALUATE = ("evaluate", "hyperparam", "--tasks", "quadratic", "--steps", 5, "--seeds", 2)
TRAIN = (
    *("meta-train", "--task", "quadratic", "--optimizer", "hyperparam", "--quiet"),
    *("--window", 2, "--pairs", 2, "--length", 5, "--no-tensorboard", "-n", 3),
)


@pytest.fixture
def sweeps(tmp_path):
    return ("--cache", tmp_path / "sweeps", "--baselines", "momentum")


def test_an_evaluation_leaves_the_files_of_others_alone(
    tmp_path, monkeypatch, capsys, sweeps
):
    output = tmp_path / "project"
    (output / "results").mkdir(parents=True)
    (output / "results" / "mine.csv").write_text("precious")
    np.savez(output / "results" / "mine.npz", x=np.ones(3))
    command = (*EVALUATE, *sweeps, "--output", output)
    assert _run(monkeypatch, *command) == 2
    assert "is not empty" in capsys.readouterr().err
    for _ in range(2):
        assert _run(monkeypatch, *command, "--overwrite") == 0
        assert (output / "results" / "mine.csv").read_text() == "precious"
        assert (output / "results" / "mine.npz").is_file()
    assert capsys.readouterr().out.count("hyperparam, 5 steps, 2 seeds ...") == 2
    assert _run(monkeypatch, *command, "--compare", output) == 2
    assert "is the output folder itself" in capsys.readouterr().err


def test_a_meta_training_leaves_the_files_of_others_alone(tmp_path, monkeypatch, capsys):
    output = tmp_path / "project"
    (output / "checkpoints").mkdir(parents=True)
    (output / "checkpoints" / "model.pt").write_text("precious")
    (output / "weights.npz").write_text("mine")
    assert _run(monkeypatch, *TRAIN, "--output", output) == 2
    assert "is not empty" in capsys.readouterr().err
    assert (output / "weights.npz").read_text() == "mine"
    (output / "checkpoints" / "model.pt").unlink()
    assert _run(monkeypatch, *TRAIN, "--output", output) == 2
    board = output / "tensorboard" / "notes"
    board.parent.mkdir()
    board.write_text("precious")
    assert _run(monkeypatch, *TRAIN, "--output", output, "--overwrite") == 0
    assert board.read_text() == "precious"
    # What an operating system leaves in a folder ends no run.
    (output / "checkpoints" / ".DS_Store").touch()
    assert _run(monkeypatch, *TRAIN, "--output", output, "-n", 4) == 0
    capsys.readouterr()
    again = ("--start-from", output / "weights.npz", "--output", output, "--overwrite")
    assert _run(monkeypatch, *TRAIN, *again) == 2
    assert "which the run starts from" in capsys.readouterr().err


def test_a_run_does_not_go_on_from_a_file_that_has_changed(tmp_path, monkeypatch, capsys):
    start = tmp_path / "start.npz"
    eqs.save(start, eqs.HyperparamController(key=jr.key(0)))
    command = (*TRAIN, "--start-from", start, "--output", tmp_path / "run")
    assert _run(monkeypatch, *command, "--schedule", "constant", "-n", 1) == 0
    assert _run(monkeypatch, *command, "--schedule", "constant", "-n", 2) == 0
    eqs.save(start, eqs.HyperparamController(key=jr.key(1)))
    capsys.readouterr()
    assert _run(monkeypatch, *command, "--schedule", "constant", "-n", 3) == 1
    assert "contents_of_start_from" in capsys.readouterr().err


def test_a_run_does_not_start_from_weights_that_are_not_finite(
    tmp_path, monkeypatch, capsys
):
    start = tmp_path / "start.npz"
    fresh = eqs.HyperparamController(key=jr.key(0))
    eqs.save(start, jtu.tree_map(lambda x: x * jnp.nan, fresh))
    assert (
        _run(monkeypatch, *TRAIN, "--start-from", start, "--output", tmp_path / "run") == 1
    )
    (said,) = capsys.readouterr().err.splitlines()
    assert f"The weights in {start} are not all finite" in said
    assert not (tmp_path / "run").exists()


def _contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_refused_run_changes_nothing_and_an_overwritten_one_leaves_nothing_behind(
    tmp_path, monkeypatch, capsys
):
    output = tmp_path / "run"
    evaluated = ("--evaluate-every", 3, "--evaluate-steps", 2)
    assert _run(monkeypatch, *TRAIN, *evaluated, "--output", output) == 0
    before = _contents(output)
    assert output / "meta_loss.png" in before
    # Evaluations of other updates make no curve with these.
    more = ("--evaluate-every", 3, "--evaluate-steps", 4, "-n", 6)
    assert _run(monkeypatch, *TRAIN, *more, "--output", output) == 2
    assert "holds evaluations of 3 networks and 2 updates" in capsys.readouterr().err
    assert _contents(output) == before

    def fail(*arguments, **settings):
        raise OSError("no more room")

    monkeypatch.setattr("equistar._cli._meta_train.meta_train", fail)
    again = (*TRAIN, "--seed", 1, "--output", output, "--overwrite")
    assert _run(monkeypatch, *again) == 1
    left = {p.name for p in output.iterdir()}
    assert not left & {"weights.npz", "weights_best.npz", "evaluation.jsonl"}


def test_a_run_whose_checkpoints_are_all_damaged_says_what_begins_it_anew(
    tmp_path, monkeypatch, capsys
):
    command = (*TRAIN, "--output", tmp_path / "run")
    assert _run(monkeypatch, *command) == 0
    for path in (tmp_path / "run" / "checkpoints").glob("*.npz"):
        path.write_text("text")
    assert _run(monkeypatch, *command) == 1
    assert "`--overwrite` on the command line" in capsys.readouterr().err
    assert _run(monkeypatch, *command, "--overwrite") == 0


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("evaluate", "star", "--tasks", "quadratic", "quadratic"), "--tasks names one"),
        ((*TRAIN, "--config", "a.json", "--config", "b.json"), "Give one --config"),
        ((*TRAIN, "--nominal-scale", "nan"), "`nominal_scale` must be finite"),
        ((*TRAIN, "--length", 3_000_000_000), r"must be below 2\*\*31"),
    ],
)
def test_what_makes_no_sense_is_a_wrong_argument(
    tmp_path, monkeypatch, capsys, arguments, message
):
    code = _run(monkeypatch, *arguments, "--output", tmp_path / "out")
    error = " ".join(capsys.readouterr().err.split())
    assert code == 2 and re.search(message, error), error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    (
        ("train", "hyperparam", "--task", "quadratic", "--steps", 5, "--overwrite"),
        ("stability", "hyperparam", "--task", "quadratic"),
        ("reproduce", "star-cancellation"),
        ("quickstart", "--smoke"),
        ("evaluate", "hyperparam", "--tasks", "quadratic", "--baselines", "momentum"),
    ),
    ids=lambda command: command[0],
)
def test_two_commands_do_not_write_into_one_folder(tmp_path, monkeypatch, capsys, command):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    output = tmp_path / "shared"
    output.mkdir()
    with locked(output):
        assert _run(monkeypatch, *command, "--output", output) == 2
    assert f"Another command is writing into {output}" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == [".lock"]


def test_experiments_share_a_folder_and_replace_their_own_files_only_if_told_to(
    tmp_path, monkeypatch, capsys
):
    output = tmp_path / "figures"
    run = lambda *more: _run(
        monkeypatch, "reproduce", "star-cancellation", "--output", output, *more
    )
    output.mkdir()
    (output / "star-fig1.npz").write_text("another's")
    run()
    made = {f"star-cancellation.{kind}" for kind in ("npz", "png")}
    assert {path.name for path in output.iterdir()} == {"star-fig1.npz", *made}
    capsys.readouterr()
    assert run() == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds star-cancellation.npz and star-cancellation.png: choose another" in said
    (output / "star-cancellation.npz").write_text("an older one")
    run("--overwrite")
    assert (output / "star-cancellation.npz").stat().st_size > 100
    assert (output / "star-fig1.npz").read_text() == "another's"


def test_a_lock_that_is_left_over_stops_no_command(tmp_path, monkeypatch):
    output = tmp_path / "empty"
    output.mkdir()
    with locked(output):
        pass
    command = "train", "hyperparam", "--task", "quadratic", "--steps", 5, "--seeds", 1
    assert _run(monkeypatch, *command, "--output", output) == 0
    assert {path.name for path in output.iterdir()} == {"curves.npz", "curves.png"}


def test_a_reader_that_goes_and_an_alphabet_of_few_letters_cost_no_results(tmp_path):
    train = ("train", "hyperparam", "--task", "quadratic", "--steps", "3", "--seeds", "2")
    command = [sys.executable, "-m", "equistar", *train, "--output", str(tmp_path / "a")]
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=env, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith(b"Training 2 networks")
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait() == 0 and b"Broken pipe" not in errors, errors
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"curves.npz", "curves.png"}


def test_a_figure_is_where_it_was_asked_for_whatever_is_drawn(tmp_path):
    curves = {"my$_{$": np.ones((2, 5)), "_hidden": 2 * np.ones((2, 5))}
    for name in ("figure", "figure.svg"):
        plot.training_curves(tmp_path / name, curves, title="a$b_{")
    assert (tmp_path / "figure").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "figure.svg").read_bytes()
    losses = {name: c[0] for name, c in curves.items()}
    plot.meta_training_curves(tmp_path / "other", losses, title="$x_{")
    assert {p.name for p in tmp_path.iterdir()} == {"figure", "figure.svg", "other"}


def test_lines_that_are_none_of_a_runs_are_left_out_of_a_figure(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "meta_loss": 1.0}\n{"step": -5, "meta_loss": 9.0}\n'
        '{"step": 2, "meta_loss": "x"}\n{"step": 3, "meta_loss": null}\n'
        '{"step": 4, "meta_loss": [1, 2]}\n'
    )
    (tmp_path / "evaluation.jsonl").write_text(
        '{"mean_loss": {"quadratic": 1}}\n{"step": 5, "mean_loss": [1]}\n'
        '{"step": 5, "mean_loss": [["a", 1]]}\n{"step": 5, "mean_loss": {"a": [1]}}\n'
        '{"step": 0, "mean_loss": {"quadratic": 1.0}}\n'
    )
    output = tmp_path / "figure.png"
    assert _run(monkeypatch, "plot", tmp_path, "--output", output) == 0
    assert capsys.readouterr().out.count("is none of a run's") == 7
    assert output.is_file()


def test_steps_of_any_number_are_named_where_they_cannot_be_counted():
    with pytest.raises(ValueError, match="below 2"):
        eqs.ConstantLength(2**31)
    assert eqs.ConstantLength(2**31 - 1).maximum == 2**31 - 1
