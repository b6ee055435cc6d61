"""What looks on while a run is made: files, warnings, evaluations, the display."""

import errno
import io
import json
import shlex
import signal
import struct
import sys
import threading
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from rich.console import Console

import equistar as eqs
from equistar import plot
from equistar._cli import main
from equistar._cli._display import Display
from equistar._cli._held_out import _means
from equistar._cli._run_files import JsonLines, MetricsLines, read_json_lines, TensorBoard
from equistar._inner_training import training_curves
from equistar._meta_training._faults import FaultWatch
from equistar._meta_training._meta_step import _estimate

from .helpers import run_command as _run


def _metrics(loss=1.0, diverged=0, dead=0, dropped=0, skipped=0, losses=(1.0,)):
    counts = (jnp.asarray(n, jnp.int32) for n in (diverged, dead, dropped, skipped))
    losses = jnp.asarray(losses, jnp.zeros(()).dtype)
    return eqs.Metrics(jnp.asarray(loss), jnp.asarray(0.5), *counts, unroll_losses=losses)


# Runs, whole and killed --------------------------------------------------------------

RUN = (
    *("meta-train", "--task", "quadratic", "--optimizer", "hyperparam", "-n", "6"),
    *("--window", "2", "--pairs", "2", "--length", "5", "--save-every", "2"),
    *("--evaluate-every", "2", "--evaluate-steps", "3", "--evaluate-seeds", "2"),
)


_COMPILED: tuple[Any, ...] = _means, _estimate


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    # What tests before this one have compiled is not counted, nor used.
    for function in _COMPILED:
        function._cached._clear_cache()
    with pytest.MonkeyPatch.context() as patch:
        assert _run(patch, *RUN, "--output", folder) == 0
    return folder, [f._cached._cache_size() for f in _COMPILED]


@pytest.fixture(scope="module")
def whole(made):
    return made[0]


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _events(folder):
    """All scalars of the event files, as (tag, step, value), and where they begin anew."""
    from tensorboardX.proto import event_pb2

    messages: Any = event_pb2
    scalars, purged = [], []
    for path in sorted(folder.iterdir(), key=lambda p: int(p.suffix[1:])):
        data, place = path.read_bytes(), 0
        while place < len(data):
            # Length, its checksum, the record, its checksum.
            (size,) = struct.unpack("<Q", data[place : place + 8])
            event = messages.Event.FromString(data[place + 12 : place + 12 + size])
            place += 16 + size
            if event.session_log.status == messages.SessionLog.START:
                purged.append(event.step)
                scalars = [s for s in scalars if s[1] < event.step]
            scalars += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    return sorted(scalars), purged


def test_a_run_writes_a_line_and_events_for_each_meta_step(whole):
    rows = _lines(whole / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    evaluations = _lines(whole / "evaluation.jsonl")
    assert [row["step"] for row in evaluations] == [0, 2, 4, 6]
    scalars, _ = _events(whole / "tensorboard")
    expected = [
        (name, row["step"], value)
        for row in rows
        for name, value in row.items()
        if name != "step"
    ]
    expected += [
        ("evaluation/quadratic", row["step"], row["mean_loss"]["quadratic"])
        for row in evaluations
    ]
    assert [s[:2] for s in scalars] == sorted(e[:2] for e in expected)
    values = [s[2] for s in scalars], [e[2] for e in sorted(expected)]
    np.testing.assert_allclose(*values, rtol=1e-6)


def test_an_evaluation_is_the_mean_training_loss_of_fresh_networks(whole):
    star = eqs.load(whole / "weights.npz")
    keys = jr.split(jr.fold_in(jr.key(0), 0x6576616C), 2)
    task = eqs.tasks.named("quadratic")
    curves = np.asarray(training_curves(task, star, steps=3, keys=keys))
    last = _lines(whole / "evaluation.jsonl")[-1]
    assert np.all(curves < 10)  # The bound, so that nothing was clipped.
    means = curves.mean(axis=1)
    assert last["mean_loss"]["quadratic"] == pytest.approx(means.mean(), rel=1e-6)
    error = means.std(ddof=1) / np.sqrt(2)
    assert last["standard_error"]["quadratic"] == pytest.approx(error, rel=1e-6)


def test_watching_changes_nothing_of_a_run(whole, tmp_path, monkeypatch):
    # Nothing is evaluated, and it is made from the file.
    again = ("meta-train", "--config", whole / "recipe.json", "--no-tensorboard", "--quiet")
    assert _run(monkeypatch, *again, "--output", tmp_path / "run") == 0
    same = "metrics.jsonl", "recipe.json"
    for name in same:
        assert (tmp_path / "run" / name).read_text() == (whole / name).read_text()
    weights = [eqs.load(f / "weights.npz") for f in (whole, tmp_path / "run")]
    assert eqx.tree_equal(*weights)
    assert not (tmp_path / "run" / "evaluation.jsonl").exists()
    assert not (tmp_path / "run" / "tensorboard").exists()


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", [2, 3])
@pytest.mark.parametrize("place", [MetricsLines, TensorBoard, Display])
def test_no_line_is_doubled_or_missing_after_a_kill(
    whole, tmp_path, monkeypatch, place, step
):
    # Before or after this watcher's turn, with a checkpoint of the same step or without.
    usual = place.step

    def killed(self, n, metrics, theta):
        if n == step:
            raise Killed
        usual(self, n, metrics, theta)

    with monkeypatch.context() as patch:
        patch.setattr(place, "step", killed)
        patch.setattr(sys, "argv", ["equistar", *RUN, "--output", str(tmp_path / "run")])
        with pytest.raises(Killed):
            main()
    # As a process that is killed may leave it.
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9')
    assert _run(monkeypatch, *RUN, "--output", tmp_path / "run") == 0
    for name in ("metrics.jsonl", "evaluation.jsonl"):
        assert (tmp_path / "run" / name).read_text() == (whole / name).read_text()
    scalars, purged = _events(tmp_path / "run" / "tensorboard")
    # The newest checkpoint was of the second meta-step.
    assert purged[-1] == 2
    assert scalars == _events(whole / "tensorboard")[0]


def test_a_run_that_is_killed_after_its_last_meta_step_is_finished(
    whole, tmp_path, monkeypatch
):
    def killed(self):
        raise Killed

    arguments = (*RUN, "--evaluate-every", 0, "--output", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(Display, "end", killed)
        with pytest.raises(Killed):
            _run(patch, *arguments)
    assert _run(monkeypatch, *arguments) == 0
    weights = [eqs.load(f / "weights.npz") for f in (whole, tmp_path / "run")]
    assert eqx.tree_equal(*weights)
    assert {p.name for p in whole.iterdir()} - {
        p.name for p in (tmp_path / "run").iterdir()
    } == {"evaluation.jsonl"}


def test_each_task_is_compiled_once(made):
    assert made[1] == [1, 1]


def test_a_run_goes_on_beyond_its_end_unless_its_schedule_ends_there(
    whole, tmp_path, monkeypatch, capsys
):
    longer = (*RUN, "--output", tmp_path / "run", "--steps")
    assert _run(monkeypatch, *longer, 2) == 0
    assert _run(monkeypatch, *longer, 6) == 0
    assert "Going on after 2 meta-steps" in capsys.readouterr().out
    metrics = [(f / "metrics.jsonl").read_text() for f in (whole, tmp_path / "run")]
    assert metrics[0] == metrics[1]
    cosine = (*RUN, "--schedule", "cosine", "--output", tmp_path / "cosine", "--steps")
    assert _run(monkeypatch, *cosine, 2) == 0
    assert _run(monkeypatch, *cosine, 6) == 1
    assert "steps = 2, and this one has 6" in capsys.readouterr().err


def test_ctrl_c_says_what_goes_on(tmp_path, monkeypatch, capsys, hears_interrupts):
    usual = Display.step

    def interrupted(self, step, metrics, theta):
        usual(self, step, metrics, theta)
        if step == 2:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Display, "step", interrupted)
        arguments = (*RUN, "--overwrite", "--output", tmp_path / "run")
        assert _run(patch, *arguments) == 130
    out = capsys.readouterr().out
    assert "Interrupted after 3 meta-steps" in out
    command = shlex.split(out.split("Go on with:\n")[1].splitlines()[0])
    assert command[0] == "equistar" and "--overwrite" not in command
    assert _run(monkeypatch, *command[1:]) == 0
    assert "Going on after 3 meta-steps" in capsys.readouterr().out
    assert len(_lines(tmp_path / "run" / "metrics.jsonl")) == 6


def test_a_run_without_meta_gradients_warns_once_and_stops(tmp_path, monkeypatch, capsys):
    # So small a sigma is lost in theta and its square is zero: each estimate is 0 / 0.
    lost = ("--sigma", "1e-200", "-n", 40, "--max-skipped", 23, "--evaluate-every", 0)
    assert _run(monkeypatch, *RUN, *lost, "--output", tmp_path / "run") == 1
    captured = capsys.readouterr()
    assert captured.err.count("of the pairs carry no signal") == 1
    assert "Meta-step 20: 100% of the pairs" in captured.err
    assert "a smaller sigma" in captured.err
    assert "Too many meta-steps had a non-finite meta-gradient" in captured.err
    assert str(tmp_path / "run" / "checkpoints" / "checkpoint-0000000023.npz") in (
        captured.err.replace("\n", "")
    )
    rows = _lines(tmp_path / "run" / "metrics.jsonl")
    assert [row["skipped"] for row in rows] == list(range(1, 24))
    # JSON has no NaN.
    assert rows[0]["gradient_norm"] is None
    weights: Any = eqs.load(tmp_path / "run" / "weights.npz")
    assert np.all(np.isfinite(weights.network.weights[0]))


def test_a_run_that_gave_up_on_its_last_meta_step_says_so_again(
    tmp_path, monkeypatch, capsys
):
    lost = ("--sigma", "1e-200", "-n", 3, "--max-skipped", 3, "--evaluate-every", 0)
    for _ in range(2):
        assert _run(monkeypatch, *RUN, *lost, "--output", tmp_path / "run") == 1
        assert "non-finite meta-gradient" in capsys.readouterr().err
    assert len(_lines(tmp_path / "run" / "metrics.jsonl")) == 3


def test_a_mixture_is_meta_trained_and_its_tasks_told_apart(tmp_path, monkeypatch):
    tasks = ("--task", "quadratic", "--family", "quadratics", "--instances", 1)
    arguments = (*RUN, *tasks, "-n", 2, "--evaluate-every", 0)
    assert _run(monkeypatch, *arguments, "--output", tmp_path / "run") == 0
    for row in _lines(tmp_path / "run" / "metrics.jsonl"):
        assert set(row["task_losses"]) == {"quadratic", "quadratics_1"}
        assert row["meta_loss"] == pytest.approx(np.mean([*row["task_losses"].values()]))
    tags = {tag for tag, _, _ in _events(tmp_path / "run" / "tensorboard")[0]}
    assert "task/quadratics_1" in tags


# Faults -------------------------------------------------------------------------------

_TEN_PAIRS: eqs.AbstractEstimator = eqs.PES(pairs=10)


def _said(shares, estimator: eqs.AbstractEstimator = _TEN_PAIRS):
    """The meta-steps of the warnings, for these shares of ten pairs without a signal."""
    watch = FaultWatch(estimator, 1, 0.5)
    said = [watch.look(_metrics(dead=round(10 * share))) for share in shares]
    return [int(text.split()[1].rstrip(":")) for text in said if text is not None]


def test_trouble_is_said_once_for_each_stretch_of_it():
    # Not before step 20; then smoothed, d_n = d_(n-1) + (x - d_(n-1)) / 20.
    assert _said([1.0] * 60) == [20]
    assert _said([0.5] * 60) == []
    # From 0: 1 - (19/20)^n > 1/2 from n = 14 on.
    assert _said([0.0] * 20 + [1.0] * 40) == [34]
    # After the good steps .95^40 = .129 is left, below half of the share, so that it may be
    # said again: 1 - .871 .95^n > 1/2 from n = 11 on.
    assert _said([1.0] * 30 + [0.0] * 40 + [1.0] * 40) == [20, 81]
    # In between the stretch goes on.
    assert _said([1.0] * 30 + [0.4] * 60 + [1.0] * 40) == [20]


def test_steps_without_an_episodes_end_are_no_fault_of_the_final_loss():
    final = eqs.FinalLoss()
    assert _said([1.0] * 60, eqs.PES(pairs=10, objective=final)) == []
    # Whole episodes all end.
    assert _said([1.0] * 60, eqs.FullES(5, pairs=10, objective=final)) == [20]


def test_diverged_networks_are_trouble_and_a_run_that_goes_on_remembers():
    # 12 of 20 members, in 6 pairs.
    trouble = _metrics(diverged=12)
    watch = FaultWatch(_TEN_PAIRS, 1, 0.5)
    watch.begin([trouble] * 30)
    assert watch.look(trouble) is None
    watch = FaultWatch(_TEN_PAIRS, 1, 0.5)
    said = [text for text in (watch.look(trouble) for _ in range(30)) if text]
    assert len(said) == 1 and "60% of their members have diverged" in said[0]
    # Of particles that have one member each, 12 of 20; of two unrolls, 12 of 40.
    single = eqs.TruncatedBackprop(particles=20)
    for unrolls, warnings in ((1, 1), (2, 0)):
        watch = FaultWatch(single, unrolls, 0.5)
        assert sum(watch.look(trouble) is not None for _ in range(30)) == warnings


# Display, files and curves ------------------------------------------------------------


@pytest.mark.parametrize("terminal", [True, False])
def test_the_display_shows_what_there_is(terminal):
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=110)
    display = Display(console, 4, 10, 2)
    display.begin([_metrics(2.0)], None)
    assert terminal or "meta-step 1/4  compiling" in file.getvalue()
    display.step(2, _metrics(1.0, diverged=5, dead=1, dropped=2, skipped=3), None)
    display.end()
    text = file.getvalue()
    # (.98 * 2 + 1) / 1.98.
    assert "meta-loss 1.4949 (now 1.0000)" in text and "gradient 0.5" in text
    assert "diverged 25%" in text and "dead 30%" in text and "skipped 3" in text
    assert "2/4" in text and "steps/s" in text


def test_a_quiet_display_shows_nothing():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True)
    console.quiet = True
    display = Display(console, 4, 10, 2)
    display.begin([_metrics()], None)
    display.step(2, _metrics(), None)
    display.end()
    assert file.getvalue() == ""


def test_damaged_lines_are_named_and_the_others_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\x00p": \n[2]\n{"step": 4}\n{"step"')
    rows, complaints = read_json_lines(path)
    assert rows == [{"step": 1}, {"step": 4}]
    assert [c.split(": ")[1].split()[:2] for c in complaints] == [
        ["line", "2"],
        ["line", "3"],
        ["the", "last"],
    ]


def test_a_full_disk_is_one_sentence(tmp_path):
    before = [thread.name for thread in threading.enumerate()]
    lines = JsonLines(tmp_path / "metrics.jsonl")
    lines.restart([])
    lines.close()
    lines._file = open("/dev/full", "w")
    with pytest.raises(OSError, match=r"metrics\.jsonl \(No space left.*make room"):
        lines.append({"step": 1})
    board = TensorBoard(tmp_path / "tensorboard", ["quadratic"])
    board.begin([], None)
    # It is written here: another thread would say more than the sentence.
    assert [thread.name for thread in threading.enumerate()] == before
    board._writer._writer.close()
    board._writer._writer = open("/dev/full", "wb")
    with pytest.raises(OSError, match=r"tensorboard \(No space left.*make room"):
        board.step(1, _metrics(), None)
    # Nothing is left to be written at the end.
    board.end()
    assert board._writer is None


def test_smoothing_is_the_moving_average_without_the_bias_of_its_start():
    # (.5 * 1 + 3) / 1.5, then with a value left out, then (.125 + .75 + 5) / (.125 + ...).
    smooth = plot.smoothed(np.array([1.0, 3.0, np.nan, 5.0]), 0.5)
    last = (0.125 + 0.75 + 5) / (0.125 + 0.25 + 1)
    np.testing.assert_allclose(smooth, [1, 3.5 / 1.5, 3.5 / 1.5, last])
    assert np.isnan(plot.smoothed(np.array([np.inf, 1.0]))[0])
    assert plot.smoothed(np.ones(0)).shape == (0,)
    with pytest.raises(ValueError, match="decay"):
        plot.smoothed(np.ones(2), 1.0)
    with pytest.raises(ValueError, match=r"smooth each row .*got shape \(2, 3\)"):
        plot.smoothed(np.ones((2, 3)))


def _drawn(monkeypatch, curves, **settings):
    figures = []
    monkeypatch.setattr(plot, "save_figure", lambda figure, path: figures.append(figure))
    plot.training_curves("curves.png", curves, **settings)
    return figures[0].axes[0]


def test_a_figure_that_finds_no_room_leaves_the_old_one(tmp_path):
    class Figure:
        def savefig(self, file, **settings):
            file.write(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "old.png").write_text("a figure")
    with pytest.raises(OSError) as error:
        plot.save_figure(Figure(), tmp_path / "old.png")
    assert error.value.filename == str(tmp_path / "old.png")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["a figure"]


def test_no_curve_is_off_the_axis_that_it_is_drawn_on(monkeypatch):
    curves = {"above": np.ones((1, 20)), "below": -np.ones((1, 20))}
    assert _drawn(monkeypatch, curves).get_yscale() == "linear"
    assert _drawn(monkeypatch, {"zero": np.zeros((1, 20))}).get_yscale() == "linear"
    # Of one that diverged at once nothing is shown.
    diverged = {"above": np.ones((1, 20)), "diverged": np.full((1, 20), np.nan)}
    assert _drawn(monkeypatch, diverged).get_yscale() == "log"
    for shown in (curves["above"], np.linspace(1, 0, 20)[None]):
        assert _drawn(monkeypatch, {"above": shown}, smoothing=1).get_yscale() == "log"


def test_the_last_steps_are_drawn_where_points_do_not_divide_them(monkeypatch):
    axes = _drawn(monkeypatch, {"a": np.arange(19.0)[None]}, smoothing=10)
    # Steps 0 to 9 and 10 to 18, each point in the middle of its own.
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[5, 4.5], [14.5, 14]])


def test_curves_of_runs_are_drawn_as_far_as_they_are(whole, tmp_path, monkeypatch, capsys):
    going = tmp_path / "going"
    going.mkdir()
    (going / "recipe.json").write_text((whole / "recipe.json").read_text())
    lines = (whole / "metrics.jsonl").read_text().splitlines()
    (going / "metrics.jsonl").write_text("\n".join([*lines[:3], "broken", lines[4][:9]]))
    figure = tmp_path / "curves.png"
    assert _run(monkeypatch, "plot", whole, going, "--output", figure) == 0
    out = capsys.readouterr().out
    assert "line 4 is damaged" in out and "the last line is not whole" in out
    assert "going: 3 of 6 meta-steps so far" in out and "run: " not in out
    assert figure.read_bytes().startswith(b"\x89PNG")
    (going / "metrics.jsonl").write_text("")
    assert _run(monkeypatch, "plot", going) == 1
    assert "holds no meta-step yet" in capsys.readouterr().err
