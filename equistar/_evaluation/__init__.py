"""Evaluation of optimizers on suites of tasks, beside tuned baselines."""

from ._baselines import (
    AbstractBaseline as AbstractBaseline,
    DAdaptation as DAdaptation,
    Prodigy as Prodigy,
    ScheduleFree as ScheduleFree,
    TunedNAdamW as TunedNAdamW,
)
from ._evaluate import evaluate as evaluate
from ._evaluation import (
    compare_evaluations as compare_evaluations,
    Evaluation as Evaluation,
    load_evaluation as load_evaluation,
    with_kept as with_kept,
)
from ._progress import AbstractProgress as AbstractProgress, NoProgress as NoProgress
from ._rate_sweeps import (
    AbstractRateSweep as AbstractRateSweep,
    TunedAdafactor as TunedAdafactor,
    TunedAdam as TunedAdam,
    TunedLion as TunedLion,
    TunedMomentum as TunedMomentum,
    TunedOptax as TunedOptax,
    TunedSGD as TunedSGD,
)
from ._results import Failure as Failure, Results as Results, Run as Run, Summary as Summary
from ._store import (
    AbstractStore as AbstractStore,
    Entry as Entry,
    FolderStore as FolderStore,
    NoStore as NoStore,
)
