"""What a checkpoint file holds: arrays by their place in the state, and JSON."""

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from .._devices import gather, spread_like
from ._logger import Metrics
from ._settings import are_same, Difference, differences, plain_settings


FORMAT, FORMAT_VERSION = "equistar checkpoint", 1
_HEADER, _HISTORY = "header", "history."
# The place of the run's PRNG key in its state: it never changes.
_KEY = ".key"


class CheckpointError(Exception):
    """A checkpoint that cannot be written or used; the message says what to do."""


class DamagedCheckpoint(Exception):
    """A file that cannot be read, or does not hold all that was written."""


def check_reach(
    made: int,
    steps: int,
    place: str = "The checkpoint",
    more: str = "`steps`",
    elsewhere: str = "folder",
) -> None:
    """Raises a `CheckpointError` if a run has gone on beyond its end.

    **Arguments:**

    - `made`, `steps`: meta-steps that have been made, and that are asked for.
    - `place`, `more`, `elsewhere`: what the message calls the checkpoint, and what to
        give more of, or another of.
    """
    if made > steps:
        raise CheckpointError(
            f"{place} is at {made} meta-steps already, and {steps} are asked for: give at "
            f"least as many {more}, or another {elsewhere}."
        )


def _leaves(state: PyTree) -> dict[str, Array]:
    """Every array by its place, PRNG keys as their data."""
    arrays = jtu.tree_flatten_with_path(eqx.filter(state, eqx.is_array))[0]
    return {jtu.keystr(path): _plain(x) for path, x in arrays}


def _plain(x: Array) -> Array:
    return jr.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def checkpoint_contents(
    state: PyTree, history: Metrics, settings: dict[str, Any], run: Any
) -> dict[str, np.ndarray]:
    leaves = {name: gather(x) for name, x in _leaves(state).items()}
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "settings": settings,
        "run": run,
        "leaves": list(leaves),
        "history": list(vars(history)),
    }
    text = json.dumps(header).encode()
    contents = {f"leaf_{i}": x for i, x in enumerate(leaves.values())}
    contents |= {_HISTORY + k: np.asarray(v) for k, v in vars(history).items()}
    return contents | {_HEADER: np.frombuffer(text, np.uint8)}


def read_checkpoint(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a whole checkpoint.

    **Raises:**

    `DamagedCheckpoint` if it is not whole, `CheckpointError` if it is too new.
    """
    try:
        return _read(path)
    except CheckpointError:
        raise
    # A bit that is wrong makes an archive anything: encrypted, or of an unknown method.
    except Exception as e:
        raise DamagedCheckpoint(f"{e}" or type(e).__name__) from e


def _read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive, or not a whole one")
    with np.load(path, allow_pickle=False) as archive:
        # Reading every entry checks its checksum, but not its name.
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays.pop(_HEADER).tobytes())
    if header["format"] != FORMAT or not isinstance(header["settings"], dict):
        raise ValueError("it is no checkpoint of equistar")
    if header["format_version"] > FORMAT_VERSION:
        raise CheckpointError(
            f"{path} was written by a newer version of equistar: upgrade it, or choose "
            "another folder."
        )
    # Files of before do not say which columns of the history they have.
    there = [k.removeprefix(_HISTORY) for k in arrays if k.startswith(_HISTORY)]
    written = [_HISTORY + k for k in header.get("history", there)]
    written += [f"leaf_{i}" for i in range(len(header["leaves"]))]
    if {*written} != {*arrays}:
        raise ValueError("its arrays are not those that were written")
    return header, arrays


def check_run(
    path: pathlib.Path, header: dict[str, Any], settings: Mapping[str, Any], run: Any
) -> None:
    """Raises a `CheckpointError` unless a run with these settings and parts wrote it."""
    saved, ours = header["settings"], plain_settings(settings)
    pairs = {k: (saved.get(k), ours.get(k)) for k in sorted({*ours, *saved})}
    changed = [Difference(k, *pair) for k, pair in pairs.items() if not are_same(*pair)]
    # Older files say nothing of the parts, and who only looks into a file does not either.
    if header.get("run") and run:
        changed += differences(header["run"], run)
    if changed:
        where, theirs, here = changed[0]
        raise CheckpointError(
            f"{path} was written by a run with {where} = {theirs!r}, and this one has "
            f"{here!r}: use the same settings, or another folder."
        )


def restore_checkpoint(
    path: pathlib.Path,
    header: dict[str, Any],
    arrays: dict[str, np.ndarray],
    fresh: PyTree,
) -> tuple[PyTree, Metrics]:
    expected = _leaves(fresh)
    found = {name: arrays[f"leaf_{i}"] for i, name in enumerate(header["leaves"])}
    found = {name: _as_kept(x, expected.get(name)) for name, x in found.items()}
    for name in sorted({*expected, *found}):
        ours, theirs = _kind(expected.get(name)), _kind(found.get(name))
        if ours != theirs:
            raise CheckpointError(
                f"{path} was written by another run: its state has {theirs} at {name}, and "
                f"this one {ours}. Use the same settings, or another folder."
            )
    same_key = lambda name: np.array_equal(found[name], gather(expected[name]))
    if _KEY in expected and not same_key(_KEY):
        raise CheckpointError(
            f"{path} was written by a run with another `key`: use the same one, or another "
            "folder."
        )
    paths, structure = jtu.tree_flatten_with_path(eqx.filter(fresh, eqx.is_array))
    leaves = [spread_like(found[jtu.keystr(place)], x) for place, x in paths]
    state = eqx.combine(jtu.tree_unflatten(structure, leaves), fresh)
    return state, checkpoint_metrics(arrays)


# NumPy's files know no bfloat16: they hold its bits, as of no kind.
def _as_kept(x: np.ndarray, like: Array | None) -> np.ndarray:
    if like is None or x.dtype.kind != "V" or x.dtype.itemsize != like.dtype.itemsize:
        return x
    return x.view(like.dtype)


def _kind(x: Array | np.ndarray | None) -> str:
    return "nothing" if x is None else f"{x.dtype} of shape {x.shape}"


def checkpoint_metrics(arrays: dict[str, np.ndarray]) -> Metrics:
    columns = {f.name: arrays[_HISTORY + f.name] for f in dataclasses.fields(Metrics)}
    # As of leaves, but that no other kind says which of two bytes they are.
    known = lambda x: x.view(jnp.bfloat16) if x.dtype == np.dtype("V2") else x
    return Metrics(**{name: known(x) for name, x in columns.items()})
