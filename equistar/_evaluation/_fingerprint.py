"""What an object computes, as a digest that is the same in every process.

Two objects have one fingerprint only where they are known to be equal: functions are
compared by their code and all that it reads, not by their names. What cannot be looked
into is like nothing else, not even itself, so it is never taken for something that was
stored.

There are two exceptions, for what changes while nothing else is computed. Locks and the
variables of threads count by their type. And what a function assigns to variables outside
of it, or puts into dictionaries, lists and sets there, is its memory, say of data that it
has read: such a variable counts for nothing, whatever reads it. So what it held at the
start, or was given from elsewhere, is not noticed, as a file that a function reads is not.
A memory of another form, in an attribute say, counts, and what was stored is made again;
that of `functools.cache` does not.
"""

import copyreg
import functools as ft
import hashlib
import pathlib
import re
import sys
import threading
import types
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np

from ._reads import attributes, bound_values, global_values, memory


_OURS = __name__.partition(".")[0]
_PLAIN = type(None), bool, int, float, complex, str, bytes
_LOCKS = type(threading.Lock()), type(threading.RLock()), threading.local
_METHODS = types.FunctionType | staticmethod | classmethod | property


def fingerprint(value: Any) -> str:
    """A digest of an object: of its arrays, of what is fixed in it, and of functions."""
    walk = _Walk(set())
    found = walk.digest(value)
    if walk.memories:
        # What had been read before it was known to be one.
        found = _Walk(walk.memories).digest(value)
    return found.hex()[:24]


class _Walk:
    """One traversal: what was seen in it already, and what it is inside of."""

    def __init__(self, memories: set[tuple[int, str]]):
        # The identity of a module's variables, and the name of one.
        self.memories = memories
        # With the objects themselves: an identity is theirs as long as they live.
        self.known: dict[int, tuple[Any, bytes]] = {}
        self.inside: list[int] = []

    def digest(self, value: Any) -> bytes:
        if type(value) in _PLAIN:
            return _hash(type(value).__name__, repr(value))
        if id(value) in self.known:
            return self.known[id(value)][1]
        if id(value) in self.inside:
            return _hash("inside of", str(len(self.inside) - self.inside.index(id(value))))
        self.inside.append(id(value))
        found = self._look_into(value)
        self.inside.pop()
        self.known[id(value)] = value, found
        return found

    def _look_into(self, value: Any) -> bytes:
        if isinstance(value, _LOCKS):
            return self._all("lock", type(value))
        if isinstance(value, types.ModuleType):
            return _hash("module", value.__name__, _source(value))
        if _is_importable(value):
            return _hash("named", *_name(value), _version(value.__module__))
        match value:
            case jax.Array() | np.ndarray() | np.generic():
                return self._all("array", type(value), *_contents(value))
            case types.FunctionType():
                return self._function(value)
            case types.CodeType():
                return self._code(value)
            case type():
                return self._class(value)
        return self._container(value)

    def _container(self, value: Any) -> bytes:
        match value:
            case types.MethodType():
                return self._all("method", value.__func__, value.__self__)
            case ft.partial():
                parts = value.func, value.args, value.keywords
                return self._all("partial", type(value), *parts)
            case staticmethod() | classmethod():
                return self._all(type(value).__name__, value.__func__)
            case ft.cached_property():
                return self._all("cached property", value.func)
            case property():
                return self._all("property", value.fget, value.fset, value.fdel)
            case tuple() | list():
                return self._all("sequence", type(value), *value)
            case set() | frozenset():
                return self._sorted("set", type(value), map(self.digest, value))
            case dict() | types.MappingProxyType():
                items = (self._all("item", *item) for item in value.items())
                return self._sorted("mapping", type(value), items)
        return self._object(value)

    def _function(self, value: types.FunctionType) -> bytes:
        code, there = value.__code__, value.__globals__
        read, bound = {}, bound_values(value)
        # A library's function reads its own library, which its version stands for.
        # Not `__module__`, which a decorator copies from what it decorates.
        if not _is_installed(there.get("__name__")):
            read = global_values(value)
            own = memory(code, read | bound)
            self.memories |= {(id(there), n) for n in own & read.keys()}
            read = self._variables(there, [*read])
            bound = {n: x for n, x in bound.items() if n not in own}
        # What was set on itself, and what it reads of modules: since their files were read
        # it may be another.
        names = attributes(code)
        outside = *read.values(), *bound.values()
        said = _values(vars(value), names), self._of_modules(outside, names)
        return self._all("function", *_name(value), code, bound, read, said)

    def _of_modules(self, objects: Iterable[Any], names: Sequence[str]) -> list[Any]:
        """What has one of these names in modules of no library, and in those in them."""
        modules, found = _modules(objects), {}
        while modules:
            module = modules.pop()
            if id(module) not in found:
                read = self._variables(vars(module), names)
                found[id(module)] = module.__name__, read
                modules += _modules(read.values())
        return [*found.values()]

    def _variables(self, there: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """Those of a module by these names, without what is a memory."""
        own = {n for identity, n in self.memories if identity == id(there)}
        return {n: there[n] for n in names if n in there and n not in own}

    def _code(self, code: types.CodeType) -> bytes:
        """What it does; not where it was written."""
        counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount
        names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        # The exceptions' table holds what lies inside of a `try`.
        does = code.co_code, code.co_exceptiontable, code.co_consts, code.co_flags
        return self._all("code", *does, counts, names)

    def _class(self, cls: type) -> bytes:
        does = {
            n: x
            for n, x in vars(cls).items()
            # Not what Python and the ABC machinery note about it.
            if isinstance(x, _METHODS) or not n.startswith(("__", "_abc_"))
        }
        return self._all("class", *_name(cls), cls.__bases__, does)

    def _object(self, value: Any) -> bytes:
        """As pickle would take it apart, though not all of its parts can be pickled."""
        # Jitted and memoised functions hold caches; what they compute is what they wrap.
        module = type(value).__module__
        if module.startswith(("jaxlib", "functools")) and hasattr(value, "__wrapped__"):
            return self._all("wrapper", type(value), value.__wrapped__)
        if isinstance(value, jtu.PyTreeDef):
            return self._all("structure", value.node_data(), *value.children())
        if isinstance(value, types.UnionType):
            return self._all("union", *value.__args__)
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            parts = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception:
            return self._opaque(value)
        # A name, under which no library has it.
        if isinstance(parts, str):
            return self._opaque(value)
        parts = [list(x) if isinstance(x, Iterator) else x for x in parts]
        return self._all("object", type(value), *parts)

    def _opaque(self, value: Any) -> bytes:
        text = repr(value)
        # An address says nothing of the contents, and may be another object's by now.
        known = text if not re.search("0x[0-9a-fA-F]+", text) else uuid.uuid4().hex
        return self._all("opaque", type(value), known)

    def _all(self, kind: str, *parts: Any) -> bytes:
        return _hash(kind, *map(self.digest, parts))

    def _sorted(self, kind: str, cls: type, digests: Iterable[bytes]) -> bytes:
        return _hash(kind, self.digest(cls), *sorted(digests))


def _hash(*parts: str | bytes) -> bytes:
    found = hashlib.sha256()
    for part in parts:
        part = part if isinstance(part, bytes) else part.encode(errors="surrogatepass")
        found.update(len(part).to_bytes(8, "big") + part)
    return found.digest()


def _contents(array: Any) -> tuple[Any, ...]:
    dtype = str(array.dtype)
    if isinstance(array, jax.Array) and jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        array = jr.key_data(array)
    array = np.asarray(array)
    if array.dtype.hasobject:
        return dtype, array.shape, array.tolist()
    return dtype, array.shape, array.tobytes()


def _name(value: Any) -> tuple[str, str]:
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", None)
    return str(getattr(value, "__module__", None)), str(name)


def _is_importable(value: Any) -> bool:
    """Whether a library has an object under its own name: the version says which."""
    module, name = _name(value)
    found = sys.modules.get(module)
    if not _is_installed(module):
        return False
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is value


def _is_installed(module: str | None) -> bool:
    """Whether a module is of a library, and not of the one who uses it."""
    root = str(module).partition(".")[0]
    if root == _OURS or root in sys.stdlib_module_names:
        return True
    parts = pathlib.Path(getattr(sys.modules.get(root), "__file__", None) or "").parts
    return "site-packages" in parts or "dist-packages" in parts


def _version(module: str) -> str:
    return str(getattr(sys.modules.get(module.partition(".")[0]), "__version__", ""))


def _values(there: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of these names that are numbers, texts and arrays."""
    kinds = *_PLAIN, jax.Array, np.ndarray, np.generic
    return {n: there[n] for n in names if isinstance(there.get(n, there), kinds)}


def _modules(objects: Iterable[Any]) -> list[types.ModuleType]:
    modules = [x for x in objects if isinstance(x, types.ModuleType)]
    return [x for x in modules if not _is_installed(x.__name__)]


def _source(module: types.ModuleType) -> bytes:
    """The file of a module that is no library's: any of it may be read."""
    path = getattr(module, "__file__", None)
    if _is_installed(module.__name__) or path is None:
        return _version(module.__name__).encode()
    return pathlib.Path(path).read_bytes()
