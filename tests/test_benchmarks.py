"""The scripts of `benchmarks/` run; what they measure is not looked at here."""

import pathlib
import runpy
import shlex
import subprocess
import sys

import pytest


BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
# All but those that need an accelerator's compiler, or write into the package.
SMALL = (
    "accelerator --size small --pairs 1 --window 2 --repetitions 1",
    "approximations sampled-means --optimizers star-best --tasks quadratic "
    "--steps 20 --seeds 2",
    "estimators --window 4 --pairs 1 --repetitions 1 --windows",
    "evaluation --seeds 1 --steps 4 --repetitions 1",
    "first_use --repetitions 1",
    "hypergradient --rates 0.2 --tasks quadratic --steps 20 --seeds 1",
    "meta_training --window 2 --pairs 1 2 --repetitions 1",
    "scaling --pairs 1 --window 2 --steps 1 --rounds 1",
    "scratch",
    "update --trees 'MLP 784-128-128-10' --repetitions 1 --members 2",
)


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.py")), ids=lambda p: p.stem)
def test_a_benchmark_says_what_it_measures(path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        runpy.run_path(str(path), run_name="__main__")
    # Lines are broken after hyphens too.
    said = "".join(capsys.readouterr().out.split())
    title = runpy.run_path(str(path))["__doc__"].splitlines()[0]
    assert "".join(title.split()) in said


@pytest.mark.slow
@pytest.mark.parametrize("command", SMALL, ids=lambda c: c.split()[0])
def test_a_benchmark_runs_at_a_small_size(command, tmp_path):
    name, *arguments = shlex.split(command)
    script = str(BENCHMARKS / f"{name}.py")
    subprocess.run([sys.executable, script, *arguments], cwd=tmp_path, check=True)
