"""What a function reads besides its arguments, and what of it is its own memory."""

import ast
import dis
import inspect
import textwrap
import tokenize
import types
from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from typing import Any


_CONTAINERS = MutableMapping, MutableSequence, MutableSet
_PUTTING = "add", "append", "extend", "insert", "setdefault", "update"


def global_values(function: types.FunctionType) -> dict[str, Any]:
    """The module's variables that a function reads, by name."""
    there = function.__globals__
    return {n: there[n] for n in sorted(set(_reads(function.__code__))) if n in there}


def bound_values(function: types.FunctionType) -> dict[str, Any]:
    """A function's defaults, and the variables of functions around it, by name."""
    code, defaults = function.__code__, function.__defaults__ or ()
    last = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
    cells = zip(code.co_freevars, function.__closure__ or (), strict=True)
    around = {n: x for n, cell in cells for x in _inside(cell)}
    by_name = function.__kwdefaults__ or {}
    return {**dict(zip(last, defaults, strict=True)), **by_name, **around}


def memory(code: types.CodeType, values: Mapping[str, Any]) -> set[str]:
    """Those of its variables that a function assigns for others, or puts something into.

    By its source: of a function that has none, they are not known.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(code)))
    # A lambda's lines may be half of a statement.
    except (OSError, SyntaxError, tokenize.TokenError):
        return set()
    assigned, filled = set(), set()
    for node in ast.walk(tree):
        match node:
            case ast.Global(names) | ast.Nonlocal(names):
                assigned |= {*names}
            case ast.Subscript(ctx=ast.Store()):
                filled.add(_root(node))
            case ast.Call(func=ast.Attribute(of, method)) if method in _PUTTING:
                filled.add(_root(of))
    holds = {n for n, x in values.items() if isinstance(x, _CONTAINERS)}
    return assigned & values.keys() | filled & holds


def attributes(code: types.CodeType) -> list[str]:
    """The attributes that a function reads, of whatever."""
    return sorted(set(_attributes(code)))


def _root(node: ast.expr) -> str | None:
    """The name of what something is an item of, at whatever depth."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _inside(cell: types.CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:
        return ()


def _reads(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if name == "LOAD_NAME" or (name.startswith("LOAD") and "GLOBAL" in name):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _reads(constant)


def _attributes(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _attributes(constant)
