"""The examples run, and notebooks hold the outputs of a full run."""

import os
import pathlib
import re
import subprocess
import sys

import nbformat
import pytest
from nbclient import NotebookClient


EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
# Most of the time at smoke size is compilation; the programs need not be fast.
SMOKE = {"EQUISTAR_SMOKE": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def test_there_are_examples():
    assert NOTEBOOKS


@every_notebook
def test_the_notebook_runs_at_smoke_size(path, tmp_path, monkeypatch):
    for name, value in SMOKE.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    kept = [_kinds(cell) for cell in _code(notebook)]
    # A cell that raises is a CellExecutionError here, with its traceback.
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()
    # The outputs that are kept are those of these cells: figures stand where they were.
    assert [_kinds(cell) for cell in _code(notebook)] == kept


@every_notebook
def test_the_notebooks_outputs_are_kept(path):
    code = _code(nbformat.read(path, as_version=4))
    # In order and from the start, as one run leaves it.
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any(cell.outputs for cell in code)
    kinds = [output.output_type for cell in code for output in cell.outputs]
    assert "error" not in kinds
    assert all(o.name == "stdout" for c in code for o in c.outputs if "name" in o)
    assert path.stat().st_size < 200_000


def test_the_script_finds_the_same_on_four_devices_as_on_one(tmp_path):
    environment = os.environ | SMOKE | {"JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    run = [sys.executable, str(EXAMPLES / "multi_device.py")]
    options = {"cwd": tmp_path, "env": environment, "timeout": 600}
    done = subprocess.run(run, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    assert "4 devices" in done.stdout
    # 8 pairs, of which each device has 2; the optimizer is on all of them.
    networks, optimizer = done.stdout.split("the optimizer: ")
    assert networks.count("holds (2, ") == 4 and "over ('particles'" in networks
    assert "particles" not in optimizer.split("after")[0]
    (apart,) = re.findall(r"differ by at most (\S+)", done.stdout)
    assert 0 <= float(apart) < 1e-3


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# Which kinds of output a cell has; text may come in several pieces.
def _kinds(cell):
    return {key for o in cell.outputs for key in o.get("data", {o.output_type: ""})}
