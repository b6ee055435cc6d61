from ._base import AbstractArchitecture as AbstractArchitecture
from ._mlp import MLP as MLP
from ._norm import (
    AbstractNorm as AbstractNorm,
    LayerNorm as LayerNorm,
    MinibatchNorm as MinibatchNorm,
    NoNorm as NoNorm,
)
