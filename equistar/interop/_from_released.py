"""Weights of the released implementation, read."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._optimizers import AbstractLearnedOptimizer
from ._assemble import assemble, DIRECTIONS


_LARGEST = float(np.finfo(np.float32).max)
# Constructor arguments that may be given, but whose default alone is supported.
_FIXED = {
    "initial_momentum_decays": (0.9, 0.99, 0.999),
    "initial_rms_decays": (0.999,),
    "initial_adafactor_decays": (0.9, 0.99, 0.999),
    "concat_weights": True,
    "make_separate_weights": False,
    "split_weights": False,
    "selfnormalize_blackbox": False,
}
_SIZES = {"hidden_size": 4, "hidden_layers": 2}
_BLACKBOX = {"exp_mult": 0.001, "step_mult": 0.001, **_SIZES}
_STAR = {
    **_SIZES,
    "exp_mult": (0.001, 0.001, 0.001),
    "step_mult": 0.001,
    "nominal_stepsize": 0.0,
    "weight_decay": 0.0,
    "nominal_controller": False,
    "regularization_controller": False,
    "nominal_grad_estimator": "AdamAggMo",
    "aggregate_magnitude": False,
    "aggregate_nom_magnitude": False,
    "aggregate_reg_magnitude": False,
    "normalize_blackbox": False,
}


def from_learned_optimization(
    theta: Mapping[str, Any], *, cls: str, **kwargs: Any
) -> AbstractLearnedOptimizer:
    """Meta-parameters of Google's `learned_optimization`, as an optimizer of ours.

    **Arguments:**

    - `theta`: arrays, by name or nested as in a checkpoint, `theta["nn"]["~"]["w0"]`:
        `nn/w0`, `nn/b0`, `nn/w1`, `nn/b1`, `nn/w2`, `nn/b2` with
        `w` of shape (in, out), of which the last holds the heads, and the offsets
        `momentum_decays` (3), `rms_decays` (1), `adafactor_decays` (3).
    - `cls`: the released class's name, `AdafacMLPLOpt` (Blackbox) or `MLPNomLOpt` (the
        STAR family).
    - `kwargs`: the released class's constructor arguments. Supported are `exp_mult`,
        `step_mult`, `hidden_size`, `hidden_layers` and, for `MLPNomLOpt`,
        `nominal_stepsize`, `weight_decay`, `nominal_controller`,
        `regularization_controller`, `nominal_grad_estimator`, `aggregate_magnitude`,
        `aggregate_nom_magnitude`, `aggregate_reg_magnitude` and `normalize_blackbox`; the
        others at their defaults only.

    **Returns:**

    A [`equistar.LearnedOptimizer`][] whose updates are the released implementation's.
    Output heads that the arguments leave unused are dropped.

    **Raises:**

    `ValueError` for a class, an argument or an array that is not supported.
    """
    match cls:
        case "AdafacMLPLOpt":
            settings = _settings(cls, kwargs, _BLACKBOX)
            if np.ndim(settings["exp_mult"]) != 0:
                raise ValueError("exp_mult must be one number for AdafacMLPLOpt.")
            settings = _STAR | settings | {"exp_mult": (settings["exp_mult"], 0, 0)}
            heads = 2
        case "MLPNomLOpt":
            settings = _settings(cls, kwargs, _STAR)
            heads = 4
        case _:
            raise ValueError(
                f"cls='{cls}' is not supported: use 'AdafacMLPLOpt' or 'MLPNomLOpt'."
            )
    name = settings["nominal_grad_estimator"]
    if not isinstance(name, str) or name not in DIRECTIONS:
        raise ValueError(
            f"nominal_grad_estimator={name!r:.80} is not supported: use one of "
            f"{sorted(DIRECTIONS)}."
        )
    if np.shape(settings["exp_mult"]) != (3,):
        raise ValueError(
            f"exp_mult must hold three numbers for MLPNomLOpt; got {kwargs['exp_mult']}."
        )
    return assemble(_check_theta(_flat(theta), heads, settings), settings)


# Haiku names the parameters of no module "~".
def _flat(theta: Any, prefix: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(theta, Mapping):
        raise ValueError(f"theta must be arrays by name; got {type(theta).__name__}.")
    flat: dict[str, Any] = {}
    for key, value in theta.items():
        names = *prefix, *(part for part in str(key).split("/") if part != "~")
        inner = _flat(value, names) if isinstance(value, Mapping) else {}
        flat |= inner or {"/".join(names): value}
    return flat


def _settings(
    cls: str, kwargs: dict[str, Any], supported: dict[str, Any]
) -> dict[str, Any]:
    for name, value in kwargs.items():
        if name in supported:
            continue
        if name not in _FIXED:
            raise ValueError(
                f"The argument {name}={value!r} of {cls} is not supported: use "
                f"{sorted(supported)}."
            )
        if not np.array_equal(value, _FIXED[name]):
            raise ValueError(
                f"{name}={value!r} of {cls} is not supported: only {_FIXED[name]!r} is."
            )
    settings = supported | {k: v for k, v in kwargs.items() if k in supported}
    for name, default in supported.items():
        _check_setting(name, settings[name], default)
    return settings


def _check_setting(name: str, value: Any, default: Any) -> None:
    match default:
        case bool():
            fits, wanted = isinstance(value, bool | np.bool_), "True or False"
        case int():
            fits = isinstance(value, int | np.integer) and value > 0
            wanted = "a positive integer"
        case float() | tuple():
            try:
                numbers = np.asarray(value, np.float64)
            except (TypeError, ValueError):
                numbers = np.array(np.nan)
            fits, wanted = bool(np.all(np.abs(numbers) < _LARGEST)), "finite"
            if not isinstance(default, tuple):
                fits, wanted = fits and numbers.ndim == 0, "a finite number"
        case _:
            return
    if not fits:
        raise ValueError(f"`{name}` must be {wanted} in float32; got {value!r:.80}.")


def _check_theta(
    theta: Mapping[str, Any], heads: int, settings: dict[str, Any]
) -> dict[str, Array]:
    depth = settings["hidden_layers"]
    sizes = [39, *[settings["hidden_size"]] * depth, heads]
    shapes = {f"nn/w{i}": (sizes[i], sizes[i + 1]) for i in range(depth + 1)}
    shapes |= {f"nn/b{i}": (sizes[i + 1],) for i in range(depth + 1)}
    shapes |= {
        "momentum_decays": (3,),
        "rms_decays": (1,),
        "adafactor_decays": (3,),
    }
    if theta.keys() != shapes.keys():
        raise ValueError(
            f"theta must have the keys {sorted(shapes)}; missing are "
            f"{sorted(shapes.keys() - theta.keys())}, not known are "
            f"{sorted(theta.keys() - shapes.keys())}."
        )
    arrays = {
        name: as_array(theta[name], f"theta['{name}']", shapes[name]) for name in shapes
    }
    for name, array in arrays.items():
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"theta['{name}'] must have real floating-point numbers.")
        if not np.all(np.abs(array.astype(np.float64)) < _LARGEST):
            raise ValueError(f"theta['{name}'] has entries that are not finite in float32.")
    dtype = jnp.zeros(()).dtype
    return {name: jnp.asarray(array, dtype) for name, array in arrays.items()}


def as_array(value: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """`value` as an array of that shape, or a `ValueError` that names it."""
    try:
        array = np.asarray(value)
    # Rows of different lengths, or what is known inside of `jax.jit` only.
    except (ValueError, TypeError) as e:
        raise ValueError(
            f"{name} must be an array of shape {shape}; got {value!r:.80}."
        ) from e
    if array.shape != shape:
        raise ValueError(f"{name} must have shape {shape}; got {array.shape}.")
    return array
