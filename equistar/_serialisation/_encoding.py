"""Optimizers as JSON and arrays: the structure apart from the numbers."""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from .. import _components, _optimizers
from .._kinds import is_real


_PLAIN = type(None), bool, int, float, str, np.float64, np.str_


class WeightsError(ValueError):
    """A weights file that cannot be written or read; the message says what to do."""


def encode(
    value: Any, arrays: dict[str, np.ndarray], own: dict[str, type], where: str
) -> Any:
    """What JSON can hold of an optimizer.

    Its arrays are added to `arrays`, and its classes that are not this library's to
    `own`, by name. `where` is what an error calls it.
    """
    inner = lambda v, name: encode(v, arrays, own, where + name)
    match value:
        case eqx.Module() if not isinstance(value, _optimizers.Stacked):
            fields = {
                f.name: inner(getattr(value, f.name), f".{f.name}")
                for f in dataclasses.fields(value)  # pyright: ignore
            }
            is_own = _is_own(type(value), own, where)
            return {"class": type(value).__name__, "own": is_own, "fields": fields}
        case jax.Array() | np.ndarray() if _is_of_numbers(value):
            return _array(np.asarray(value), arrays)
        case _optimizers.FrozenArray():
            of_numpy = isinstance(value.array, np.ndarray)
            return {"frozen": inner(value.array, ""), "numpy": of_numpy}
        # Not their subclasses, which would come back as something else.
        case tuple() | list() if type(value) in (tuple, list):
            items = [inner(v, f"[{i}]") for i, v in enumerate(value)]
            return {type(value).__name__: items}
        case dict() if type(value) is dict and all(isinstance(k, str) for k in value):
            return {"dict": {k: inner(v, f".{k}") for k, v in value.items()}}
        case float() if not math.isfinite(value):
            return {"float": str(float(value))}
        case None | bool() | int() | float() | str() if type(value) in _PLAIN:
            return value
        case _ if callable(value) and _optax_name(value) is not None:
            return {"optax": _optax_name(value)}
    raise WeightsError(f"{where} is {_why_not(value)}.")


def _array(array: np.ndarray, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    name = f"array_{len(arrays)}"
    # That of another machine is not built in either, and its bits would be read as ours.
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    node = {"array": name, "shape": list(array.shape)}
    # NumPy's files know no bfloat16: its bits are kept.
    if array.dtype.isbuiltin != 1:
        node["dtype"] = array.dtype.name
        array = array.view(f"uint{8 * array.dtype.itemsize}")
    arrays[name] = array
    return node


def _is_of_numbers(array: Any) -> bool:
    return (isinstance(array, jax.Array) or type(array) is np.ndarray) and is_real(array)


def _why_not(value: Any) -> str:
    """What a value is that no file can hold, and what to do instead."""
    kind = type(value).__name__
    if isinstance(value, _optimizers.Stacked):
        return (
            "Stacked, which belongs to one tree of parameters: save its `.optimizer`, and "
            "wrap what `load` gives"
        )
    if isinstance(value, jax.Array | np.ndarray) and jnp.iscomplexobj(value):
        return f"of {value.dtype}, and weights are real: keep real and imaginary part apart"
    if isinstance(value, jax.Array):  # Any other is of numbers.
        return (
            "a PRNG key, which a weights file cannot hold: keep `jax.random.key_data` of it"
        )
    if callable(value):
        return (
            f"a {kind} that is not optax's own, and a weights file holds no code: save the "
            "optimizer that it belongs to without it, or the arrays alone with "
            "`equinox.tree_serialise_leaves`"
        )
    return (
        f"a {kind}, which a weights file cannot hold: save the optimizer that it belongs "
        "to without it"
    )


def _is_own(cls: type, own: dict[str, type], where: str) -> bool:
    """Whether a class is not this library's, though one of its name may be."""
    name = cls.__name__
    if public_classes().get(name) is cls:
        return False
    if own.setdefault(name, cls) is not cls:
        raise WeightsError(
            f"{where} is a {name} of {cls.__module__}, and another part is a {name} of "
            f"{own[name].__module__}, which a file cannot tell apart: rename one of them."
        )
    return True


def _optax_name(value: Any) -> str | None:
    # A partial, as `optax.nadamw` is, has no name of its own: whatever holds it has.
    own = getattr(value, "__name__", None)
    names = [own] if own else dir(optax) + dir(optax.contrib)
    every = (n for name in names for n in (name, f"contrib.{name}"))
    return next((n for n in every if _of_optax(n) is value), None)


def _of_optax(name: str) -> Any:
    *contrib, own = name.split(".")
    return getattr(optax.contrib if contrib else optax, own, None)


def decode(
    node: Any, arrays: dict[str, np.ndarray], parts: dict[str, type[eqx.Module]]
) -> Any:
    """The inverse of `encode`; beside this library's classes it may build `parts`."""
    inner = lambda n: decode(n, arrays, parts)
    match node:
        case {"class": str(name), "fields": dict(fields)}:
            cls = _class_of(name, node.get("own"), parts)
            return _build(cls, {k: inner(v) for k, v in fields.items()})
        case {"array": str()}:
            return jnp.asarray(_read_array(node, arrays))
        case {"frozen": {"array": str()} as held}:
            array = _read_array(held, arrays)
            # Files of before this was written do not say whose array it is.
            of_numpy = node.get("numpy", False)
            return _optimizers.frozen(array if of_numpy else jnp.asarray(array))
        case {"tuple": list(items)}:
            return tuple(map(inner, items))
        case {"list": list(items)}:
            return list(map(inner, items))
        case {"dict": dict(items)}:
            return {k: inner(v) for k, v in items.items()}
        case {"float": str(number)}:
            return float(number)
        case {"optax": str(name)}:
            if (found := _of_optax(name)) is None:
                raise WeightsError(f"it names optax.{name}, which this optax has not.")
            return found
        case None | bool() | int() | float() | str():
            return node
    raise WeightsError("its header describes something unknown: save it again.")


def _read_array(node: dict[str, Any], arrays: dict[str, np.ndarray]) -> np.ndarray:
    name = node["array"]
    array = arrays[name]
    if list(array.shape) != node.get("shape", list(array.shape)):
        raise WeightsError(
            f"it is damaged: {name} has shape {array.shape}, and was saved with "
            f"{tuple(node['shape'])}. Copy it again, or use a backup."
        )
    array = array.view(jnp.dtype(node.get("dtype", array.dtype)))
    if not _is_of_numbers(array):
        raise WeightsError(
            f"it is damaged: {name} has dtype {array.dtype}, and weights are real "
            "numbers. Copy it again, or use a backup."
        )
    return array


def _class_of(
    name: str, own: bool | None, parts: dict[str, type[eqx.Module]]
) -> type[eqx.Module]:
    # Files of before this was written do not say whose class it is.
    if own is None:
        classes = public_classes() | parts
    else:
        classes = parts if own else public_classes()
    if name in classes:
        return classes[name]
    if own is False:
        raise WeightsError(
            f"this version of equistar has no class '{name}': install the one that the "
            "file was saved with."
        )
    raise WeightsError(
        f"the optimizer was assembled with a class '{name}' of your own: pass "
        f"`parts=({name},)` to `equistar.load`."
    )


# Constructors draw new weights, so an instance is put together from its fields.
def _build(cls: type[eqx.Module], values: dict[str, Any]) -> eqx.Module:
    names = {f.name for f in dataclasses.fields(cls)}  # pyright: ignore
    if names != values.keys():
        is_own = public_classes().get(cls.__name__) is not cls
        remedy = (
            "it is your class: pass that version of it in `parts`, or save the file again"
            if is_own
            else "install that version of equistar"
        )
        raise WeightsError(
            f"it was saved with another version of {cls.__name__} (fields "
            f"{sorted(values)}, here {sorted(names)}): {remedy}."
        )
    instance = object.__new__(cls)
    for name, value in values.items():
        object.__setattr__(instance, name, value)
    return instance


def public_classes() -> dict[str, type[eqx.Module]]:
    """The classes of this library that an optimizer is assembled from, by name."""
    named = vars(_components) | vars(_optimizers)
    is_part = lambda x: isinstance(x, type) and issubclass(x, eqx.Module)
    return {name: value for name, value in named.items() if is_part(value)}
