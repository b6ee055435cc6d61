"""Training on a task: by itself, and as an unroll."""

from ._curves import adam_curves as adam_curves, training_curves as training_curves
from ._meta_losses import (
    AbstractMetaLoss as AbstractMetaLoss,
    AfterUpdate as AfterUpdate,
    check_takes_split as check_takes_split,
    HeldOut as HeldOut,
    TrainingBatch as TrainingBatch,
)
from ._training import (
    InnerTraining as InnerTraining,
    train as train,
    train_init as train_init,
    train_step as train_step,
    TrainResult as TrainResult,
    TrainState as TrainState,
)
