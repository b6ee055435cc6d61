"""The outer loop: what it steps through, how, and what it keeps of it."""

from ._checkpoint_file import check_reach as check_reach, CheckpointError as CheckpointError
from ._checkpoints import (
    AbstractCheckpoints as AbstractCheckpoints,
    Checkpoints as Checkpoints,
    NoCheckpoints as NoCheckpoints,
)
from ._feed import AbstractFeed as AbstractFeed
from ._logger import (
    AbstractLogger as AbstractLogger,
    Metrics as Metrics,
    NoLogger as NoLogger,
    stack_metrics as stack_metrics,
    unstack_metrics as unstack_metrics,
)
from ._meta_gradient import meta_gradient as meta_gradient
from ._meta_step import (
    meta_train_init as meta_train_init,
    meta_train_step as meta_train_step,
    MetaTrainState as MetaTrainState,
)
from ._meta_train import meta_train as meta_train, MetaTrainResult as MetaTrainResult
from ._mixture import (
    AbstractCombination as AbstractCombination,
    Mixture as Mixture,
    NormalisedMean as NormalisedMean,
    WeightedMean as WeightedMean,
)
from ._outer import (
    blackbox_mask as blackbox_mask,
    check_finite as check_finite,
    default_outer as default_outer,
)
from ._relative import Relative as Relative, RelativeFeed as RelativeFeed
from ._slab_feed import SlabFeed as SlabFeed
from ._trainable import all_but as all_but, only as only
