"""Arrays in static fields."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, eq=False, repr=False)
class FrozenArray:
    """An array that is hashed and compared by what it holds, as static fields must be.

    Of NumPy or of JAX, it is the same.
    """

    array: jax.Array | np.ndarray

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, FrozenArray) and self._contents == other._contents

    def __hash__(self) -> int:
        return hash(self._contents)

    def __repr__(self) -> str:
        return repr(self.array)

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        return np.asarray(self.array, *args, **kwargs)

    @property
    def _contents(self) -> tuple[Any, ...]:
        array = np.asarray(self.array)
        return array.dtype, array.shape, array.tobytes()


def frozen(value: Any) -> Any:
    """An array as a `FrozenArray`, NumPy's numbers as Python's; anything else as it is.

    Numbers in dicts and lists too, say those of a mask.

    **Raises:** `ValueError` for an array that is traced.
    """
    if isinstance(value, jax.core.Tracer):
        raise ValueError(
            "`Fixed` holds what is known before a function is traced, and this is a traced "
            "array: wrap it outside of jit, vmap and grad."
        )
    value = _plain(value)
    if isinstance(value, np.ndarray):
        # Its owner may go on to write into it.
        value = value.copy()
        value.flags.writeable = False
    is_array = isinstance(value, jax.Array | np.ndarray)
    return FrozenArray(value) if is_array and not _is_key(value) else value


# Equinox takes NumPy's numbers for arrays, which a static field must not be.
def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {key: _plain(x) for key, x in value.items()}
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _is_key(array: jax.Array | np.ndarray) -> bool:
    return jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
