"""What to do instead where a module is hashed, as `jax.jit` hashes a method's."""

from collections.abc import Callable


def hash_or_advice(module: object, own_hash: Callable[[], int], instead: str) -> int:
    """The hash of a module's fields, or a `TypeError` with what to do if it has none."""
    try:
        return own_hash()
    except TypeError:
        raise TypeError(
            f"{type(module).__name__} holds arrays and has no hash, which `jax.jit` needs "
            f"of what it compiles: use {instead}."
        ) from None
