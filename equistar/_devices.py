"""Spreading particles over devices: one mesh axis, one code path.

The mesh is the ambient one, `with jax.set_mesh(eqs.particle_mesh()): ...`. Where there is
none, or none with an axis of particles, everything here does nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import equinox as eqx
import jax
import jax.lax as lax
import jax.numpy as jnp
import jax.random as jr
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree


AXIS = "particles"


def particle_mesh(devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
    """A mesh whose one axis carries the particles of an estimator.

    !!! Example

        ```python
        with jax.set_mesh(eqs.particle_mesh()):
            result = eqs.meta_train(unroll, eqs.PES(pairs=64), star, steps=1000, key=key)
        ```

    Noise and data of a particle depend only on its index, so results do not depend on the
    number of devices, up to rounding.

    **Arguments:**

    - `devices`: a sequence of `jax.Device`; by default all, of all processes.

    **Returns:**

    A `jax.sharding.Mesh` with the one axis `particles`.
    """
    n = len(jax.devices() if devices is None else devices)
    # Explicit axes, the default, refuse gathers inside vmapped scans.
    axis_types = (jax.sharding.AxisType.Auto,)
    return jax.make_mesh((n,), (AXIS,), axis_types=axis_types, devices=devices)


def shard_particles(tree: PyTree, particles: int) -> PyTree:
    """Spreads arrays with a leading axis of particles over the ambient mesh.

    **Raises:**

    `ValueError` if the particles do not divide over the devices.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if AXIS not in mesh.axis_names:
        return tree
    devices = mesh.shape[AXIS]
    if particles % devices:
        raise ValueError(
            f"{particles} particles do not divide over {devices} devices: choose a "
            f"multiple of {devices}."
        )
    spec = jax.sharding.PartitionSpec(AXIS)
    constrain = lambda x: (
        lax.with_sharding_constraint(x, spec) if isinstance(x, jax.Array) and x.ndim else x
    )
    return jtu.tree_map(constrain, tree)


def put_on_all_devices(tree: PyTree) -> PyTree:
    """Puts a copy of every array on each device of the ambient mesh."""
    if AXIS not in jax.sharding.get_abstract_mesh().axis_names:
        return tree
    try:
        mesh = jax.sharding.get_mesh()
    except ValueError:
        # While a function is traced, only the compiler can be told. (Under vmap alone
        # there is none yet.) JAX has no other public way to ask, and no other reason here.
        return eqx.filter_jit(constrain_replicated)(tree)
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    def put(x: Array) -> Array:
        if x.sharding.is_equivalent_to(sharding, x.ndim):
            # The same bytes, but a program that is given the one compiles again for the
            # other, as on a mesh of a single device.
            return x if x.sharding == sharding else jax.device_put(x, sharding)
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return jr.wrap_key_data(put(jr.key_data(x)), impl=jr.key_impl(x))
        # Unlike `device_put`, this reaches the devices of other processes.
        host = jax.device_get(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda index: host[index])

    return jtu.tree_map(lambda x: put(x) if isinstance(x, jax.Array) else x, tree)


def constrain_replicated(tree: PyTree) -> PyTree:
    """Tells the compiler that every device of the ambient mesh holds these arrays whole."""
    if AXIS not in jax.sharding.get_abstract_mesh().axis_names:
        return tree
    whole = jax.sharding.PartitionSpec()
    constrain = lambda x: (
        lax.with_sharding_constraint(x, whole) if isinstance(x, jax.Array) else x
    )
    return jtu.tree_map(constrain, tree)


def gather(x: Array) -> np.ndarray:
    """An array on the host, whole, whichever devices and processes hold it."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return _all_gather(x, tiled=True)


def spread_like(host: np.ndarray, like: Array) -> Array:
    """An array from the host on the devices, and of the dtype, of another."""
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        data = spread_like(host, jr.key_data(like))
        return jr.wrap_key_data(data, impl=jr.key_impl(like))
    host = host.astype(like.dtype)
    return jax.make_array_from_callback(host.shape, like.sharding, lambda i: host[i])


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in any process of the run; all must ask."""
    if jax.process_count() == 1:
        return flag
    return bool(_all_gather(np.array([flag])).any())


@contextmanager
def all_or_none() -> Iterator[None]:
    """What all processes of the run do before any goes on: if one fails, all raise.

    Around what may fail in some of them only. It waits for the others, so all must come
    here, and nothing inside may.
    """
    try:
        yield
    except Exception:
        any_process(True)
        raise
    if any_process(False):
        raise ValueError(
            "Another process of the run has failed: read why in what it has printed, and "
            "start all of them again."
        )


def alike_everywhere(numbers: np.ndarray) -> bool:
    """Whether all processes of the run pass the same numbers; all must ask."""
    if jax.process_count() == 1:
        return True
    found = _all_gather(numbers)
    return bool(np.all(found == found[:1]))


def _all_gather(x: Any, tiled: bool = False) -> np.ndarray:
    from jax.experimental import multihost_utils

    try:
        return np.asarray(multihost_utils.process_allgather(x, tiled=tiled))
    except ValueError as e:
        # What the death of another process raises here, now and then.
        raise jax.errors.JaxRuntimeError(str(e)) from e
