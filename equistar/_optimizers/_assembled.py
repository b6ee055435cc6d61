"""A learned optimizer from any parts."""

from .._components import (
    AbstractAccumulator,
    AbstractBlackboxTerm,
    AbstractFeatures,
    AbstractGain,
    AbstractNetwork,
    AbstractNominalTerm,
    AbstractWeightDecay,
    default_accumulators,
    NoBlackbox,
    NoFeatures,
    NoGain,
    NoNetwork,
    NoNominal,
    NoWeightDecay,
    read_accumulators,
)
from ._learned import AbstractLearnedOptimizer


class LearnedOptimizer(AbstractLearnedOptimizer):
    """A learned optimizer from any parts.

    See [`equistar.AbstractLearnedOptimizer`][] for the update rule.
    """

    accumulators: dict[str, AbstractAccumulator]
    features: AbstractFeatures
    network: AbstractNetwork
    blackbox: AbstractBlackboxTerm
    nominal: AbstractNominalTerm
    weight_decay: AbstractWeightDecay
    gain: AbstractGain

    def __init__(
        self,
        *,
        features: AbstractFeatures = NoFeatures(),
        network: AbstractNetwork = NoNetwork(),
        blackbox: AbstractBlackboxTerm = NoBlackbox(),
        nominal: AbstractNominalTerm = NoNominal(),
        weight_decay: AbstractWeightDecay = NoWeightDecay(),
        gain: AbstractGain = NoGain(),
        accumulators: dict[str, AbstractAccumulator] | None = None,
    ):
        """**Arguments:**

        - `features`: the network's inputs.
        - `network`: maps the inputs of each element to hidden units, which the heads of
            the terms read.
        - `blackbox`, `nominal`, `weight_decay`: the terms of the update.
        - `gain`: a factor on the first two for each tensor, say [`equistar.TensorGain`][].
        - `accumulators`: the bank that the parts read from, by name; by default
            `default_accumulators()`. Only those that a part reads are kept.

        **Raises:**

        `ValueError` if a part is not of its kind, or reads an accumulator that is not in
        the bank.
        """
        self.features = features
        self.network = network
        self.blackbox = blackbox
        self.nominal = nominal
        self.weight_decay = weight_decay
        self.gain = gain
        bank = default_accumulators() if accumulators is None else accumulators
        self.accumulators = read_accumulators(bank, *self._readers)
