"""The notebooks of `examples/` run, and hold the outputs of a full run."""

import pathlib

import nbformat
import pytest
from nbclient import NotebookClient


NOTEBOOKS = sorted((pathlib.Path(__file__).parents[1] / "examples").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def test_there_are_examples():
    assert NOTEBOOKS


@every_notebook
def test_the_notebook_runs_at_smoke_size(path, tmp_path, monkeypatch):
    monkeypatch.setenv("EQUISTAR_SMOKE", "1")
    notebook = nbformat.read(path, as_version=4)
    kept = [_kinds(cell) for cell in _code(notebook)]
    # A cell that raises is a CellExecutionError here, with its traceback.
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, resources=resources).execute()
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


def _code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


# Which kinds of output a cell has; text may come in several pieces.
def _kinds(cell):
    return {key for o in cell.outputs for key in o.get("data", {o.output_type: ""})}
