"""The parts that released weights are, put together."""

from typing import Any

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .._components import (
    AbstractAccumulator,
    AbstractBlackboxTerm,
    AbstractNominalTerm,
    AbstractWeightDecay,
    AdafactorFeatures,
    AdamAggMoDirection,
    AdamDirection,
    AggMoDirection,
    BlackboxMLP,
    BlackboxTerm,
    EMAPreconditioner,
    FactoredSecondMoment,
    GradientDirection,
    Head,
    MagnitudeController,
    Momentum,
    MomentumDirection,
    NoBlackbox,
    NominalTerm,
    NoNominal,
    NoPreconditioner,
    NoWeightDecay,
    PerElement,
    PerTensor,
    SecondMoment,
    WeightDecay,
)
from .._optimizers import AbstractLearnedOptimizer, LearnedOptimizer
from ._order import kind_order


DIRECTIONS = {
    "SGD": GradientDirection(),
    "SGDM": MomentumDirection(),
    "AggMo": AggMoDirection(),
    "Adam": AdamDirection(),
    "AdamAggMo": AdamAggMoDirection(),
}


def assemble(theta: dict[str, Array], settings: dict[str, Any]) -> AbstractLearnedOptimizer:
    """An optimizer of arrays and constructor arguments that have been checked."""
    heads = _Heads(theta, settings)
    return LearnedOptimizer(
        features=AdafactorFeatures(),
        network=_trunk(theta, settings["hidden_size"], settings["hidden_layers"]),
        blackbox=_blackbox(heads, settings),
        nominal=_nominal(heads, settings),
        weight_decay=_weight_decay(heads, settings),
        accumulators=_accumulators(theta),
    )


class _Heads:
    """The network's output heads, of which the released weights are the columns."""

    def __init__(self, theta: dict[str, Array], settings: dict[str, Any]):
        depth = settings["hidden_layers"]
        self.width = settings["hidden_size"]
        self.weights, self.biases = theta[f"nn/w{depth}"], theta[f"nn/b{depth}"]
        self.settings = settings

    def head(self, i: int) -> Head:
        """Head `i`."""
        blank = Head(self.width, key=jr.key(0))
        arrays = self.weights[:, i], self.biases[i]
        return eqx.tree_at(lambda h: (h.weight, h.bias), blank, arrays)

    def controller(self, i: int, beta: float, flag: str) -> MagnitudeController:
        """Head `i` as a magnitude, of each tensor where the setting `flag` says so."""
        aggregation = PerTensor() if self.settings[flag] else PerElement()
        blank = MagnitudeController(self.width, float(beta), aggregation, key=jr.key(0))
        return eqx.tree_at(lambda c: c.head, blank, self.head(i))


def _blackbox(heads: _Heads, settings: dict[str, Any]) -> AbstractBlackboxTerm:
    if settings["step_mult"] == 0:
        return NoBlackbox()
    normalised = settings["normalize_blackbox"]
    blank = BlackboxTerm(
        heads.width,
        magnitude=heads.controller(1, settings["exp_mult"][0], "aggregate_magnitude"),
        preconditioner=EMAPreconditioner() if normalised else NoPreconditioner(),
        scale=float(settings["step_mult"]),
        key=jr.key(0),
    )
    return eqx.tree_at(lambda b: b.direction, blank, heads.head(0))


def _nominal(heads: _Heads, settings: dict[str, Any]) -> AbstractNominalTerm:
    direction = DIRECTIONS[settings["nominal_grad_estimator"]]
    beta_1, beta_2 = float(settings["nominal_stepsize"]), settings["exp_mult"][1]
    if beta_1 == 0:
        return NoNominal()
    if settings["nominal_controller"]:
        magnitude = heads.controller(2, beta_2, "aggregate_nom_magnitude")
        return NominalTerm(direction, magnitude, beta_1)
    # The release feeds a log-magnitude of 1 where the controller is missing.
    return NominalTerm(direction, scale=beta_1 * float(np.exp(beta_2)))


def _weight_decay(heads: _Heads, settings: dict[str, Any]) -> AbstractWeightDecay:
    decay, beta_5 = float(settings["weight_decay"]), settings["exp_mult"][2]
    if decay == 0:
        return NoWeightDecay()
    if settings["regularization_controller"]:
        magnitude = heads.controller(3, beta_5, "aggregate_reg_magnitude")
        return WeightDecay(decay, magnitude)
    return WeightDecay(decay)


def _trunk(theta: dict[str, Array], width: int, depth: int) -> BlackboxMLP:
    first = theta["nn/w0"][np.array(kind_order(3))]
    weights = first, *(theta[f"nn/w{i}"] for i in range(1, depth))
    biases = tuple(theta[f"nn/b{i}"] for i in range(depth))
    blank = BlackboxMLP(39, width, depth, key=jr.key(0))
    return eqx.tree_at(lambda n: (n.weights, n.biases), blank, (weights, biases))


def _accumulators(theta: dict[str, Array]) -> dict[str, AbstractAccumulator]:
    blanks = {
        "momentum": (Momentum(), "momentum_decays"),
        "second_moment": (SecondMoment(), "rms_decays"),
        "factored": (FactoredSecondMoment(), "adafactor_decays"),
    }
    return {
        name: eqx.tree_at(lambda a: a.offsets, blank, theta[key])
        for name, (blank, key) in blanks.items()
    }
