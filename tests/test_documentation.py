"""Every public name has a docstring and stands on exactly one API page."""

import inspect
import pathlib
import re

import pytest

import equistar as eqs
import equistar.plot
import equistar.testing


PAGES = sorted((pathlib.Path(__file__).parents[1] / "docs" / "api").glob("*.md"))
DOCUMENTED = re.findall(
    r"^::: equistar\.(\S+)", "\n".join(p.read_text() for p in PAGES), re.M
)

MODULES = ("analysis", "interop", "plot", "tasks", "testing")


def _is_public(name, value):
    # What a module imports from elsewhere, say from typing, is not its own.
    ours = getattr(value, "__module__", "equistar").startswith("equistar")
    return ours and not name.startswith("_") and not inspect.ismodule(value)


def _public():
    for name, value in vars(eqs).items():
        if _is_public(name, value):
            yield name, value
    for module in MODULES:
        for name, value in vars(getattr(eqs, module)).items():
            if _is_public(name, value):
                yield f"{module}.{name}", value


@pytest.mark.parametrize("name", [name for name, _ in _public()])
def test_public_name_is_on_one_api_page_and_has_a_docstring(name):
    assert DOCUMENTED.count(name) == 1
    value = eqs
    for part in name.split("."):
        value = getattr(value, part)
    assert (value.__doc__ or "").strip()


def test_documented_names_exist():
    for name in DOCUMENTED:
        value = eqs
        for part in name.split("."):
            value = getattr(value, part)
