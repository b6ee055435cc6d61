"""Weights of other implementations, read and written."""

from ._from_released import from_learned_optimization as from_learned_optimization
from ._meta_mlp import load_meta_mlp as load_meta_mlp, save_meta_mlp as save_meta_mlp
from ._to_released import (
    Released as Released,
    to_learned_optimization as to_learned_optimization,
)
