"""The experiments of the papers, by the name that `equistar reproduce` knows."""

from ._base import AbstractExperiment as AbstractExperiment, Claim as Claim
from ._pes_influence_balancing import InfluenceExperiment
from ._pes_regression import LearningRateSchedule
from ._spectrum_digits import SpectrumOnDigits
from ._star_ablations import Ablations
from ._star_cancellation import Cancellation
from ._star_fig1 import EigenvaluesAfterInterventions
from ._star_fig2a import MetaGradientVariance
from ._star_fig2bc import MetaTrainingBesideNominal
from ._star_fig3 import MetaTrainingCurves
from ._stepsize_horizon import StepSizeHorizon
from ._stepsize_label_noise import label_noise_on_mnist, LabelNoise
from ._stepsize_objectives import StepSizeObjectives
from ._stepsize_validation import TrainByValidation


EXPERIMENTS: dict[str, AbstractExperiment] = {
    "pes-influence-balancing": InfluenceExperiment(),
    "pes-regression": LearningRateSchedule(),
    "star-fig1": EigenvaluesAfterInterventions(),
    "star-fig2a": MetaGradientVariance(),
    "star-fig2bc": MetaTrainingBesideNominal(),
    "star-fig3": MetaTrainingCurves(),
    "star-ablations": Ablations(),
    "star-cancellation": Cancellation(),
    "stepsize-validation": TrainByValidation(),
    "stepsize-objectives": StepSizeObjectives(),
    "stepsize-horizon": StepSizeHorizon(),
    "stepsize-label-noise": LabelNoise(),
    "stepsize-label-noise-mnist": label_noise_on_mnist(),
    "spectrum-digits": SpectrumOnDigits(),
}
