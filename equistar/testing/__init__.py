"""Property-based tests of optimizers: strategies, and properties in one line."""

try:
    import hypothesis as _hypothesis
except ImportError as e:
    raise ImportError(
        "equistar.testing needs hypothesis: pip install 'equistar[tests]'."
    ) from e

from ._base import AbstractProperty as AbstractProperty
from ._check import (
    check as check,
    EXPECTED as EXPECTED,
    optimizer_tests as optimizer_tests,
)
from ._properties import (
    BoundedUpdate as BoundedUpdate,
    IgnoresLeafOrder as IgnoresLeafOrder,
    JitEqualsEager as JitEqualsEager,
    KeepsStructure as KeepsStructure,
    NaNStaysInItsLeaf as NaNStaysInItsLeaf,
    RestsAtZeroGradient as RestsAtZeroGradient,
    ShardedEqualsUnsharded as ShardedEqualsUnsharded,
    StaysFinite as StaysFinite,
    VmapEqualsLoop as VmapEqualsLoop,
    WideAccumulators as WideAccumulators,
)
from ._quadratics import StableOnQuadratics as StableOnQuadratics
from ._strategies import (
    disturbed_matrices as disturbed_matrices,
    gradient_sequences as gradient_sequences,
    Gradients as Gradients,
    parameter_trees as parameter_trees,
    Parameters as Parameters,
    spd_matrices as spd_matrices,
    spectra as spectra,
    symmetric_matrices as symmetric_matrices,
)


del _hypothesis
