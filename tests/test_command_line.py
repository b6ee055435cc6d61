"""The command line, in the process itself where nothing else is asked."""

import json
import pathlib
import signal
import sys
import tomllib

import jax.random as jr
import numpy as np
import pytest

import equistar as eqs
from equistar import _cli, tasks
from equistar._cli._stability import Stability
from equistar._recipes import OptimizerRecipe
from equistar.analysis import JointSpectrum

from .helpers import run_command as _run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "run"
    with pytest.MonkeyPatch.context() as patch:
        sizes = ("-n", 3, "--window", 4, "--pairs", 2, "--length", 6, "--output", folder)
        code = _run(patch, "meta-train", "--optimizer", "hyperparam", *sizes)
    assert code == 0
    return folder


def test_meta_train_writes_weights_metrics_and_a_figure(trained):
    assert {p.name for p in trained.iterdir()} == {
        "checkpoints",
        "weights.npz",
        "weights_best.npz",
        "recipe.json",
        "metrics.jsonl",
        "meta_loss.png",
        "tensorboard",
    }
    assert isinstance(eqs.load(trained / "weights.npz"), eqs.HyperparamController)
    lines = [json.loads(x) for x in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [x["step"] for x in lines] == [1, 2, 3]
    assert (trained / "meta_loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_request_to_terminate_is_heard_as_ctrl_c_is(hears_interrupts):
    heard = []
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    _cli._as_ctrl_c(signal.SIGTERM, None)
    assert heard == [signal.SIGINT]
    # As in background jobs of a shell.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt):
        _cli._as_ctrl_c(signal.SIGTERM, None)


def test_the_home_folder_is_found_where_no_shell_has_put_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, meant in (
        ("~/run", f"{tmp_path}/run"),
        ("--output=~/run", f"--output={tmp_path}/run"),
        ("--output=a~/run", "--output=a~/run"),
        ("~run", "~run"),
        ("a=~/run", "a=~/run"),
    ):
        assert _cli._at_home(given) == meant


def test_a_platform_that_is_not_there_is_one_sentence(trained, monkeypatch, capsys):
    message = "Unable to initialize backend 'nonsense': it is not known."

    def unable(self):
        raise RuntimeError(message)

    monkeypatch.setattr(_cli.Train, "run", unable)
    assert _run(monkeypatch, "train", trained / "weights.npz") == 1
    assert capsys.readouterr().err == f"equistar: {message}\n"


def test_train_uses_the_weights(trained, tmp_path, monkeypatch, capsys):
    sizes = ("--steps", 5, "--seeds", 2, "--output", tmp_path / "out")
    assert _run(monkeypatch, "train", trained / "weights.npz", *sizes) == 0
    assert "mean loss" in capsys.readouterr().out
    with np.load(tmp_path / "out" / "curves.npz") as curves:
        assert curves["losses"].shape == (2, 5)


def test_divergence_is_said_and_the_curves_are_kept(trained, tmp_path, monkeypatch, capsys):
    sizes = ("--steps", 20, "--seeds", 2, "--output", tmp_path / "out")
    arguments = ("train", trained / "weights.npz", "--learning-rate", "1e300", *sizes)
    assert _run(monkeypatch, *arguments) == 1
    assert "diverged" in capsys.readouterr().out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"curves.npz", "curves.png"}


def test_info_says_what_a_file_holds(trained, monkeypatch, capsys):
    assert _run(monkeypatch, "info", trained / "weights.npz") == 0
    out = capsys.readouterr().out
    assert "HyperparamController" in out and "192" in out and "meta steps" in out


def test_info_prints_whatever_a_user_has_noted(tmp_path, monkeypatch, capsys):
    # rich would read [/x] as markup.
    noted = {"evaluation": {"loss": 1.0}, "note": "see [/x]", "meta_training_curve": "?"}
    path = tmp_path / "dir[b]" / "mine.npz"
    path.parent.mkdir()
    eqs.save(path, eqs.STAR(key=jr.key(0)), noted)
    assert _run(monkeypatch, "info", path) == 0
    out = capsys.readouterr().out.replace("\n", "")
    assert "loss 1" in out and "see [/x]" in out and "dir[b]" in out


def test_info_says_what_a_wrapper_was_given(tmp_path, monkeypatch, capsys):
    path = tmp_path / "some.safetensors"
    eqs.save(path, eqs.SampledMeans(eqs.STAR(key=jr.key(0)), every=7, least=333))
    assert _run(monkeypatch, "info", path) == 0
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines()]
    told = {row[0].strip(): row[1].strip() for row in rows if len(row) == 2}
    assert (told["optimizer"], told["every"], told["least"]) == ("STAR", "7", "333")


def test_a_folder_that_may_not_be_written_is_refused_before_anything_runs(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr(OptimizerRecipe, "build", None)
    for command in (("reproduce", "pes-regression"), ("train", "star")):
        assert _run(monkeypatch, *command, "--output", tmp_path) == 2
        assert "You may not write into" in capsys.readouterr().err


def test_stability_prints_spectra_and_invariances(trained, tmp_path, monkeypatch, capsys):
    sizes = "--task quadratic --steps 0 5 --number 2 --batches 1".split()
    arguments = ("stability", trained / "weights.npz", *sizes, "--output", tmp_path / "out")
    assert _run(monkeypatch, *arguments) == 0
    out = capsys.readouterr().out
    assert out.count("compiling") == 3
    assert "rho" in out and "Adam" in out and "loss scale" in out
    with np.load(tmp_path / "out" / "spectrum.npz") as data:
        assert data["weights.npz rho"].shape == (2,)
        assert np.all(data["weights.npz rho"] > 0.9)
    assert (tmp_path / "out" / "spectrum.png").read_bytes().startswith(b"\x89PNG")
    # Whoever diverges is named, Adam too.
    one = JointSpectrum(np.ones(1), np.ones(1), np.zeros(1), 1, 1.0, True)
    found = {"weights.npz": [one, one], "Adam 0.01": [one]}
    monkeypatch.setattr(Stability, "_spectra", lambda self, optimizers, out: found)
    assert _run(monkeypatch, *arguments, "--overwrite") == 1
    assert "Adam 0.01: training diverged before step 5." in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    ["quickstart", "meta-train", "train star-best", "evaluate", "stability star-best"],
)
@pytest.mark.parametrize("seed", [2**32, -1])
def test_a_seed_that_no_key_is_made_of_is_refused_before_a_folder_is_made(
    tmp_path, monkeypatch, capsys, command, seed
):
    out = tmp_path / "out"
    arguments = (*command.split(), "--output", out, "--seed", seed)
    # What comes after the check would take its time.
    monkeypatch.setattr(jr, "key", None)
    assert _run(monkeypatch, *arguments) == 2
    assert f"--seed must be from 0 to 2**32 - 1; got {seed}." in capsys.readouterr().err
    assert not out.exists()


def test_a_run_that_was_cut_short_before_its_last_file_makes_it(trained, monkeypatch):
    (trained / "meta_loss.png").unlink()
    recipe = ("--config", trained / "recipe.json", "--output", trained)
    assert _run(monkeypatch, "meta-train", *recipe) == 0
    assert (trained / "meta_loss.png").read_bytes().startswith(b"\x89PNG")
    assert eqs.load_header(trained / "weights.npz")["provenance"]["meta_steps"] == 3


def test_output_is_never_overwritten_silently(trained, monkeypatch, capsys):
    # It is said before anything is built.
    monkeypatch.setattr(OptimizerRecipe, "build", None)
    before = (trained / "weights.npz").read_bytes()
    # Of another run, and not of a run at all.
    assert _run(monkeypatch, "meta-train", "--output", trained) == 1
    assert "was written by a run with" in capsys.readouterr().err
    recipe = ("--config", trained / "recipe.json", "--steps", 2, "--output", trained)
    assert _run(monkeypatch, "meta-train", *recipe) == 2
    assert "is at 3 meta-steps already" in capsys.readouterr().err
    assert _run(monkeypatch, "plot", trained, "--output", trained) == 2
    assert "must be a file" in capsys.readouterr().err
    recipe = (*recipe[:2], "--output", trained)
    assert _run(monkeypatch, "meta-train", *recipe) == 0
    assert "Done already after 3 meta-steps" in capsys.readouterr().out
    assert (trained / "weights.npz").read_bytes() == before
    assert json.loads((trained / "recipe.json").read_text())["steps"] == 3
    assert _run(monkeypatch, "meta-train", "--output", trained.parent) == 2
    assert "not empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, code, message",
    [
        (("meta-train", "--task", "imagenet"), 2, "digits_mlp"),
        (("meta-train", "--pairs", 0), 2, "pairs"),
        (("meta-train", "-n", 0), 2, "--steps"),
        (("meta-train", "--sigma", "nan"), 2, "sigma"),
        (("meta-train", "--learning-rate", "nan"), 2, "learning_rate"),
        (("meta-train", "--weight-decay", "-1"), 2, "weight_decay"),
        (("meta-train", "star-papr"), 2, "did you mean 'star-paper'?"),
        (("meta-train", "--task", "digit_mlp"), 2, "did you mean 'digits_mlp'?"),
        (("evaluate", "--tasks", "digit_mlp"), 2, "did you mean 'digits_mlp'?"),
        (("evaluate", "--suite", "ofline"), 2, "did you mean 'offline'?"),
        (("train", "star-bst"), 1, "did you mean 'star-best'?"),
        (("reproduce", "star_fig1"), 2, "did you mean 'star-fig1'?"),
        (("data", "prepare", "fashion"), 2, "did you mean 'fashion_mnist'?"),
        (("meta-train", "--seed", 1, "star-fast"), 2, "must come first"),
        (("meta-train", "--seed", 1, "star-digits"), 2, "must come first"),
        (("meta-train", "star-fast", "--config", "x.json"), 2, "not both"),
        (("meta-train", "--config", "x.json"), 1, "is not there"),
        (("meta-train", "star-paper"), 1, "equistar data prepare fashion_mnist"),
        (("meta-train", "--family", "imagenet"), 2, "quadratics"),
        (("meta-train", "--task-weights", 1, 2), 2, "task_weights"),
        (("meta-train", "--objective", "minimum"), 2, "full-es"),
        (("meta-train", "--optimizer", "hyperparam", "--nominal", "none"), 2, "nominal"),
        (("meta-train", "--nominal", "none", "--hold", "nominal"), 2, "leave it out"),
        (("meta-train", "--schedule", "cosine", "--warm-up", 1000), 2, "warm_up"),
        (("meta-train", "--shortest", 501), 2, "shortest <= longest"),
        (("meta-train", "--evaluate-every", "-1"), 2, "--evaluate-every"),
        (("meta-train", "--evaluate-task", "wine_mlp"), 2, "--evaluate-every"),
        (("meta-train", "--evaluate-task", "imagenet"), 2, "digits_mlp"),
        (("meta-train", "--warn-share", 0), 2, "--warn-share"),
        (("meta-train", "--save-minutes", "nan"), 2, "--save-minutes"),
        (("plot",), 2, "Give the folder"),
        (("plot", "nothing"), 1, "is not there"),
        (("plot", "nothing", "nothing"), 2, "given twice"),
        (("plot", "nothing", "--smoothing", 1), 2, "--smoothing"),
        (("plot", "nothing", "--output", "p.xyz"), 2, "--output must end in .png"),
        (("convert", "a.safetensors", "b.npz", "--exp-mult", "nan"), 2, "--exp-mult must"),
        (("convert", "a.safetensors", "b.npz"), 1, "give the path of a file that is."),
        (("convert", "a.safetensors", "b.npz", "--step-mult", -1), 2, "--step-mult must"),
        (("train", "nothing.npz"), 1, "is not there"),
        (("train", "nothing.npz", "--task", "imagenet"), 2, "digits_mlp"),
        (("stability", "nothing.npz", "--task", "imagenet"), 2, "digits_mlp"),
        (("info", "nothing.npz"), 1, "is not there"),
        (("train", "nothing.npz", "--seeds", 0), 2, "at least 1"),
        (("meta-train", "--optimizer", "adam"), 2, "star"),
        (("stability", "nothing.npz"), 1, "is not there"),
        (("stability", "nothing.npz", "--steps", 5, 1), 2, "increasing"),
        (("stability", "nothing.npz", "--steps", 2**31), 2, "must be below 2**31"),
        (("stability", "nothing.npz", "--number", 0), 2, "at least 1"),
        (("evaluate", "nothing.npz"), 1, "is not there"),
        (("evaluate", "--tasks", "imagenet"), 2, "digits_mlp"),
        (("evaluate", "--suite", "imagenet"), 2, "smoke"),
        (("evaluate", "--baselines", "magic"), 2, "adam"),
        (("evaluate", "--baselines"), 2, "--baselines adam"),
        (("evaluate", "--horizons", 0), 2, "at least 1"),
        (("evaluate", "--time-budget", "nan"), 2, "--time-budget"),
        (("evaluate", "--compare", "nothing"), 1, "no results"),
        (("meta-train", "--estimator", "magic"), 2, "pes"),
        (("meta-train", "--save-every", 0), 2, "--save-every"),
        (("data", "prepare", "imagenet"), 2, "fashion_mnist"),
        (("data", "prepare", "lm1b", "--vocabulary", 10), 2, "--vocabulary"),
        (("data", "prepare", "mnist", "--vocabulary", 0), 2, "has no words"),
        (("nonsense",), 2, "quickstart"),
        ((), 2, "quickstart"),
    ],
)
def test_wrong_arguments_get_one_sentence_and_an_exit_code(
    tmp_path, monkeypatch, capsys, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert _run(monkeypatch, *arguments) == code
    captured = capsys.readouterr()
    assert message in captured.err + captured.out
    assert "Traceback" not in captured.err
    # Nothing is left behind.
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        "quickstart",
        "meta-train",
        "plot",
        "train",
        "evaluate",
        "info",
        "stability",
        "reproduce",
        "data",
    ],
)
def test_help_teaches(monkeypatch, capsys, command):
    assert _run(monkeypatch, command, "--help") == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) > 8


def test_the_version_is_told(monkeypatch, capsys):
    assert _run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"equistar {eqs.__version__}\n"


def test_an_interrupt_ends_a_process_at_once_and_other_codes_in_order(monkeypatch):
    class Left(Exception):
        pass

    def leave(code):
        raise Left(code)

    monkeypatch.setattr("os._exit", leave)
    for code, ending in ((0, SystemExit), (1, SystemExit), (130, Left)):
        monkeypatch.setattr(_cli, "main", lambda code=code: sys.exit(code))
        with pytest.raises(ending) as end:
            _cli.command()
        assert end.value.args == (code,)
    # Processes of one run end it together.
    monkeypatch.setattr("jax.distributed.is_initialized", lambda: True)
    with pytest.raises(SystemExit):
        _cli.command()


def test_both_ways_to_start_the_command_are_one():
    root = pathlib.Path(__file__).parents[1]
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"equistar": "equistar._cli:command"}
    assert "command()" in (root / "equistar" / "__main__.py").read_text()


def test_data_list_shows_what_is_prepared(monkeypatch, capsys):
    folder = pathlib.Path(__file__).parent / "data" / "tfds"
    assert _run(monkeypatch, "data", "list", "--data-dir", folder) == 0
    assert "version 3.0.2" in capsys.readouterr().out


def test_every_task_is_listed_by_the_command_line_and_the_guide(monkeypatch, capsys):
    guide = (pathlib.Path(__file__).parents[1] / "docs" / "tasks.md").read_text()
    assert _run(monkeypatch, "data", "tasks") == 0
    out = capsys.readouterr().out
    for name in tasks.NAMED:
        assert name in out and f"`{name}`" in guide
    assert f"`offline`: {len(tasks.SUITES['offline'])} tasks" in guide
