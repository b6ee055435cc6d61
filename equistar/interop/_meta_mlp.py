"""The layout that PyTorch implementations of the blackbox optimizer hold weights in."""

import json
import os
import pathlib
from typing import Any

import numpy as np

from .._files import write_atomically
from .._optimizers import AbstractLearnedOptimizer
from ._from_released import from_learned_optimization
from ._to_released import to_learned_optimization


_OFFSETS = {"momentum_decays": 3, "rms_decays": 1, "adafactor_decays": 3}
_METADATA = "equistar"


def load_meta_mlp(
    path: str | os.PathLike,
    *,
    exp_mult: float | None = None,
    step_mult: float | None = None,
) -> AbstractLearnedOptimizer:
    """A blackbox optimizer from a safetensors file in the PyTorch `MetaMLP` layout.

    Published `small_fc_lopt` weights are in it. The arrays are `network.input.weight`
    (width, 39), `network.linear_0.weight` (width, width), ... and `network.output.weight`
    (2, width), stored (out, in), each with its `bias`; any width, any number of layers.
    Inputs are in the order of the released implementation.

    **Arguments:**

    - `path`: the file.
    - `exp_mult`, `step_mult`: $\\beta_4$ and $\\beta_3$, which the layout does not hold; by
        default those that `save_meta_mlp` noted in the file, or else .001.

    **Returns:**

    A [`equistar.LearnedOptimizer`][]. Its accumulators' decays, which the layout does not
    hold either, are those that `save_meta_mlp` noted, or else the initial ones.

    **Raises:**

    `FileNotFoundError` if the file is not there, `ValueError` if it is not in the layout.
    """
    arrays, noted = _read(pathlib.Path(path))
    layers = _layers(arrays, path)
    theta = {f"nn/w{i}": arrays[f"{name}.weight"].T for i, name in enumerate(layers)}
    theta |= {f"nn/b{i}": arrays[f"{name}.bias"] for i, name in enumerate(layers)}
    for name, n in _OFFSETS.items():
        theta[name] = np.asarray(noted.get(name, [0.0] * n))
    settings = {"exp_mult": exp_mult, "step_mult": step_mult}
    chosen = {
        name: noted.get(name, 0.001) if value is None else value
        for name, value in settings.items()
    }
    width, depth = theta["nn/w0"].shape[-1], len(layers) - 1
    sizes = {"hidden_size": width, "hidden_layers": depth}
    return from_learned_optimization(theta, cls="AdafacMLPLOpt", **chosen, **sizes)


def save_meta_mlp(path: str | os.PathLike, optimizer: AbstractLearnedOptimizer) -> None:
    """Writes a blackbox optimizer as a safetensors file in the PyTorch `MetaMLP` layout.

    What the layout does not hold ($\\beta_3$, $\\beta_4$, the accumulators' decays) is
    noted in the file's metadata, where `load_meta_mlp` finds it. Others ignore that, so
    they must be told $\\beta_3$ and $\\beta_4$, and have the initial decays.

    **Arguments:**

    - `path`: the file to write or replace, atomically.
    - `optimizer`: a blackbox term alone, as [`equistar.Blackbox`][] has. A magnitude head
        that it lacks is written as zeros.

    **Raises:**

    `ValueError` if the optimizer has a part that the layout has no place for.
    """
    import safetensors.numpy

    released = to_learned_optimization(optimizer)
    if released.cls != "AdafacMLPLOpt":
        raise ValueError(
            "The MetaMLP layout holds a blackbox term alone: this optimizer has a nominal "
            "term, a preconditioner, weight decay or a shared magnitude. Use "
            "`equistar.save`."
        )
    theta, kwargs = released.theta, released.kwargs
    tensors = {}
    for i, name in enumerate(_names(kwargs["hidden_layers"])):
        weight = np.ascontiguousarray(theta[f"nn/w{i}"].T, np.float32)
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.bias"] = theta[f"nn/b{i}"].astype(np.float32)
    noted: dict[str, Any] = {name: theta[name].tolist() for name in _OFFSETS}
    noted |= {name: kwargs[name] for name in ("exp_mult", "step_mult")}
    content = safetensors.numpy.save(tensors, {_METADATA: json.dumps(noted)})
    write_atomically(pathlib.Path(path), lambda file: file.write(content))


def _names(depth: int) -> list[str]:
    inner = [f"network.linear_{i}" for i in range(depth - 1)]
    return ["network.input", *inner, "network.output"]


def _read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    import safetensors

    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}
            noted = json.loads((file.metadata() or {}).get(_METADATA, "{}"))
    except (safetensors.SafetensorError, ValueError, TypeError) as e:
        raise ValueError(f"{path} is not a whole safetensors file: {e}") from e
    return arrays, noted


def _layers(arrays: dict[str, np.ndarray], path: str | os.PathLike) -> list[str]:
    layers = _names(sum(name.startswith("network.linear_") for name in arrays) // 2 + 1)
    expected = {f"{name}.{kind}" for name in layers for kind in ("weight", "bias")}
    if arrays.keys() != expected or any(
        arrays[f"{name}.weight"].ndim != 2 for name in layers
    ):
        raise ValueError(
            f"{path} is not in the MetaMLP layout: it should have matrices and biases "
            f"{sorted(expected)}; it has {sorted(arrays)}."
        )
    return layers
