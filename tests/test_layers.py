"""Imports point down only, and no module or function grows past one idea."""

import ast
import pathlib

import pytest

import equistar


ROOT = pathlib.Path(equistar.__file__).parent
# From the bottom: a module may import from its own layer only within its own package,
# and from every layer below.
LAYERS = (
    {"_hash", "_keys", "_kinds", "_linear_loss", "_lowering", "_numerics"},
    {"_devices", "_eigh", "_files", "_names", "_results", "_smoothing", "_text", "_warn"},
    {"_components", "_unrolls", "tasks", "plot"},
    {"_optimizers", "_estimators"},
    {"_inner_training", "_serialisation"},
    {"_meta_training", "interop"},
    {"_recipes", "_evaluation", "analysis", "testing"},
    {"_reproduce"},
    {"_cli"},
    {"__main__"},
)
LAYER = {name: i for i, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(ROOT.rglob("*.py"))


def _unit(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _imported_units(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = path.parents[node.level - 1]
            target = package.joinpath(*(node.module or "").split("."))
            names = [target] if node.module else [target / a.name for a in node.names]
            for name in names:
                yield name.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    unit = _unit(path)
    if unit == "__init__":
        return
    for other in _imported_units(path):
        assert other == unit or LAYER[other] < LAYER[unit], f"{unit} imports {other}"


def test_no_module_is_longer_than_300_lines():
    long = [p.name for p in MODULES if len(p.read_text().splitlines()) > 300]
    assert not long


def test_no_function_body_is_longer_than_40_lines():
    long = [
        f"{path.name}: {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and _body(node) > 40
    ]
    assert not long


# Its arguments and its docstring may be as long as they have to be.
def _body(function):
    documented = ast.get_docstring(function) is not None and len(function.body) > 1
    return function.end_lineno - function.body[documented].lineno + 1
