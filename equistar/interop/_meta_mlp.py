"""The layout that PyTorch implementations of the blackbox optimizer hold weights in."""

import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._files import where_to_write, write_atomically
from .._kinds import as_number, as_path, is_real
from .._optimizers import AbstractLearnedOptimizer
from .._serialisation import WeightsError
from ._from_released import as_array, from_learned_optimization
from ._to_released import to_learned_optimization


# What the layout does not hold, and what is taken if nobody says otherwise.
_INITIAL = {
    "exp_mult": 0.001,
    "step_mult": 0.001,
    "momentum_decays": (0.0, 0.0, 0.0),
    "rms_decays": (0.0,),
    "adafactor_decays": (0.0, 0.0, 0.0),
}
_MULTIPLIERS = "exp_mult", "step_mult"
_METADATA = "equistar"
_INPUTS = 39
_INNER = re.compile(r"^network\.linear_(\d+)\.")


def load_meta_mlp(
    path: str | os.PathLike[str],
    *,
    exp_mult: float | None = None,
    step_mult: float | None = None,
    momentum_decays: Sequence[float] | None = None,
    rms_decays: Sequence[float] | None = None,
    adafactor_decays: Sequence[float] | None = None,
) -> AbstractLearnedOptimizer:
    """A blackbox optimizer from a safetensors file in the PyTorch `MetaMLP` layout.

    Published `small_fc_lopt` weights use it. The arrays are `network.input.weight`
    (width, 39), `network.linear_0.weight` (width, width), ... and `network.output.weight`
    (2, width), stored (out, in), each with its `bias`, for any width and any number of
    layers. Inputs are in the order of the released implementation.

    **Arguments:**

    - `path`: the file.
    - `exp_mult`, `step_mult`: $\\beta_4$ and $\\beta_3$.
    - `momentum_decays`, `rms_decays`, `adafactor_decays`: unconstrained offsets of the
        decays, 3, 1 and 3 numbers, zero for the initial ones.

    The layout holds none of these numbers; an implementation keeps them in its code. By
    default they are those that `save_meta_mlp` noted in the file, or else .001, .001 and
    zeros.

    **Returns:**

    A [`equistar.LearnedOptimizer`][].

    **Raises:**

    [`equistar.WeightsError`][] if the file is not there, damaged or not in the layout;
    another `ValueError` if a number that was passed makes no sense.
    """
    arrays, noted = _read(as_path(path, "path"))
    layers = _layers(arrays, path)
    for name, value in (("exp_mult", exp_mult), ("step_mult", step_mult)):
        number = 0.0 if value is None else as_number(value, f"`{name}`", "0.001")
        if not 0 <= number < math.inf:
            raise ValueError(f"`{name}` must be finite and at least 0; got {value}.")
    theta = {f"nn/w{i}": arrays[f"{name}.weight"].T for i, name in enumerate(layers)}
    theta |= {f"nn/b{i}": arrays[f"{name}.bias"] for i, name in enumerate(layers)}
    given = {
        "exp_mult": exp_mult,
        "step_mult": step_mult,
        "momentum_decays": momentum_decays,
        "rms_decays": rms_decays,
        "adafactor_decays": adafactor_decays,
    }
    chosen = _INITIAL | noted | {k: v for k, v in given.items() if v is not None}
    multipliers = {name: chosen.pop(name) for name in _MULTIPLIERS}
    theta |= {name: _decays(name, value) for name, value in chosen.items()}
    width, depth = theta["nn/w0"].shape[-1], len(layers) - 1
    sizes = {"hidden_size": width, "hidden_layers": depth}
    return from_learned_optimization(theta, cls="AdafacMLPLOpt", **multipliers, **sizes)


def _decays(name: str, value: Any) -> np.ndarray:
    array = as_array(value, f"`{name}`", np.shape(_INITIAL[name]))
    if not is_real(array):
        raise ValueError(f"`{name}` must be real numbers; got {value!r:.80}.")
    return array.astype(float)


def save_meta_mlp(
    path: str | os.PathLike[str], optimizer: AbstractLearnedOptimizer
) -> None:
    """Writes a blackbox optimizer as a safetensors file in the PyTorch `MetaMLP` layout.

    The numbers that the layout does not hold ($\\beta_3$, $\\beta_4$, the accumulators'
    decays) are noted in the file's metadata, where `load_meta_mlp` finds them. Other
    implementations ignore the metadata, so you must tell them $\\beta_3$ and $\\beta_4$,
    and they use the initial decays.

    **Arguments:**

    - `path`: the file to write or replace, atomically.
    - `optimizer`: one with only a blackbox term, such as [`equistar.Blackbox`][]. A missing
        magnitude head is written as zeros.

    **Raises:**

    [`equistar.WeightsError`][] if the file cannot be written; another `ValueError` if the
    optimizer has a part that the layout has no place for, or its weights are not finite.
    """
    import safetensors.numpy

    path = as_path(path, "path")
    released = to_learned_optimization(optimizer)
    if released.cls != "AdafacMLPLOpt":
        raise ValueError(
            "The MetaMLP layout holds a blackbox term alone: this optimizer has a nominal "
            "term, a preconditioner, weight decay or a shared magnitude. Use "
            "`equistar.save`."
        )
    theta, kwargs = released.theta, released.kwargs
    if not all(np.all(np.isfinite(x)) for x in theta.values()):
        raise ValueError("The weights are not all finite: take an earlier file of the run.")
    tensors = {}
    for i, name in enumerate(_names(kwargs["hidden_layers"])):
        weight = np.ascontiguousarray(theta[f"nn/w{i}"].T, np.float32)
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.bias"] = theta[f"nn/b{i}"].astype(np.float32)
    noted: dict[str, Any] = {name: kwargs[name] for name in _MULTIPLIERS}
    noted |= {name: theta[name].tolist() for name in _INITIAL if name in theta}
    content = safetensors.numpy.save(tensors, {_METADATA: json.dumps(noted)})
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as e:
        raise WeightsError(f"Cannot write {path}: {e.strerror}. {where_to_write(e)}") from e


def _names(depth: int) -> list[str]:
    inner = [f"network.linear_{i}" for i in range(depth - 1)]
    return ["network.input", *inner, "network.output"]


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import safetensors

    if not path.is_file():
        raise WeightsError(f"There is no file {path}.")
    try:
        # safetensors says of what it may not read that it is not there.
        path.open("rb").close()
        with safetensors.safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, ValueError, TypeError) as e:
        raise WeightsError(f"{path} is not a whole safetensors file: {e}") from e
    except OSError as e:
        raise WeightsError(f"{path} cannot be read: check its permissions.") from e
    try:
        noted = json.loads(metadata.get(_METADATA, "{}"))
        if not isinstance(noted, dict):
            raise ValueError(f"it is {noted!r:.80}")
        noted = {name: noted[name] for name in _INITIAL if name in noted}
        for name, value in noted.items():
            if np.shape(np.asarray(value, float)) != np.shape(_INITIAL[name]):
                raise ValueError(f"{name} is {value!r:.80}")
    except (ValueError, TypeError) as e:
        raise WeightsError(
            f"{path} has metadata '{_METADATA}' that equistar did not write: {e}."
        ) from e
    return arrays, noted


def _layers(arrays: dict[str, np.ndarray], path: str | os.PathLike[str]) -> list[str]:
    numbers = [int(n) for name in arrays for n in _INNER.findall(name)]
    layers = _names(min(max(numbers, default=-1), len(arrays)) + 2)
    expected = {f"{name}.{kind}" for name in layers for kind in ("weight", "bias")}
    if arrays.keys() != expected:
        raise WeightsError(
            f"{path} is not in the MetaMLP layout: missing are "
            f"{sorted(expected - arrays.keys())}, not known are "
            f"{sorted(arrays.keys() - expected)}."
        )
    width = (*arrays[f"{layers[0]}.weight"].shape, 0)[0]
    for name in layers:
        rows = 2 if name == layers[-1] else width
        columns = _INPUTS if name == layers[0] else width
        for kind, shape in (("weight", (rows, columns)), ("bias", (rows,))):
            array = arrays[f"{name}.{kind}"]
            if array.shape != shape or not jnp.issubdtype(array.dtype, jnp.floating):
                raise WeightsError(
                    f"{path} is not in the MetaMLP layout: {name}.{kind} must be floating-"
                    f"point numbers of shape {shape}, stored (out, in); got {array.dtype} "
                    f"of shape {array.shape}."
                )
    return layers
