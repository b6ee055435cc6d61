"""The update rule again, in NumPy and with nothing shared: what tests compare with.

One function for each equation of Harrison et al. (2022), as their released implementation
computes it. Of an optimizer it reads which kind its parts are and their numbers, and calls
nothing. Every tensor is handled alone, in float64, and all inputs of all its elements are
stacked, in some forty times the memory of `AbstractLearnedOptimizer.update`, which must
agree with it. `reference_inputs.py` has the first half: what the network sees.

What compares numbers (maxima and clips) compares their real parts first, and all else is
analytic: learned numbers may be complex, and tests differentiate by complex steps.
"""

from typing import Any

import jax.tree_util as jtu
import numpy as np

import equistar as eqs

from .reference_inputs import (
    Averages,
    inverse_rms,
    network_inputs,
    no_reference,
    normalised_momenta,
    start_averages,
    updated_averages,
)


def reference_start(optimizer: eqs.AbstractLearnedOptimizer) -> Averages:
    """One tensor's moving averages before the first update."""
    return start_averages(optimizer.accumulators)


def reference_update(
    optimizer: eqs.AbstractLearnedOptimizer,
    grad: Any,
    param: Any,
    averages: Averages,
    count: int,
) -> tuple[np.ndarray, Averages]:
    """What is added to one tensor, p' - p = -s - u - lambda exp(beta_5 a_r) p, and its
    moving averages after that. `count` is the number of updates made before this one.
    """
    g, p = np.asarray(grad, np.float64), np.asarray(param, np.float64)
    if p.size == 0:
        return np.zeros(p.shape), averages
    # Numbers alone: from here on there is no array of JAX.
    optimizer = jtu.tree_map(np.asarray, optimizer)
    new = {
        name: updated_averages(optimizer.accumulators[name], old, g)
        for name, old in averages.items()
    }
    units = hidden_units(optimizer, g, p, new, count)
    if not isinstance(optimizer.gain, eqs.NoGain):
        raise no_reference(optimizer.gain)
    s = blackbox_term(optimizer.blackbox, units, new)
    u = nominal_term(optimizer.nominal, units, new, g)
    decay = weight_decay_term(optimizer.weight_decay, units, p)
    return np.broadcast_to(-s - u - decay, p.shape), new


# Network.


def hidden_units(
    optimizer: eqs.AbstractLearnedOptimizer,
    g: np.ndarray,
    p: np.ndarray,
    averages: Averages,
    count: int,
) -> Any:
    """Layers of relu(x w + b) on the last axis of the 39 inputs; or none."""
    match optimizer.network, optimizer.features:
        case eqs.NoNetwork(), eqs.NoFeatures():
            return None
        case eqs.BlackboxMLP() as network, eqs.AdafactorFeatures():
            units = network_inputs(g, p, averages, count)
            for weight, bias in zip(network.weights, network.biases, strict=True):
                units = np.maximum(units @ weight + bias, 0)
            return units
        case other:
            raise no_reference(other)


def head(part: Any, units: Any) -> Any:
    """w . h + b: one number for each element."""
    return units @ part.weight + part.bias


# The update rule.


def blackbox_term(part: Any, units: Any, averages: Averages) -> Any:
    """s = beta_3 d exp(beta_4 a_b) R."""
    match part:
        case eqs.NoBlackbox():
            return 0.0
        case eqs.BlackboxTerm():
            d = head(part.direction, units)
            factor = preconditioner(part.preconditioner, averages)
            return multiplier(part.scale) * d * magnitude(part.magnitude, units) * factor
        case other:
            raise no_reference(other)


def preconditioner(part: Any, averages: Averages) -> Any:
    """R, or 1."""
    match part:
        case eqs.NoPreconditioner():
            return 1.0
        case eqs.EMAPreconditioner():
            (v,) = averages["second_moment"]
            return inverse_rms(v)
        case other:
            raise no_reference(other)


def nominal_term(part: Any, units: Any, averages: Averages, g: np.ndarray) -> Any:
    """u = beta_1 exp(beta_2 a_n) nominal."""
    match part:
        case eqs.NoNominal():
            return 0.0
        case eqs.NominalTerm():
            nominal = nominal_direction(part.direction, averages, g)
            return multiplier(part.scale) * magnitude(part.magnitude, units) * nominal
        case other:
            raise no_reference(other)


def nominal_direction(part: Any, averages: Averages, g: np.ndarray) -> np.ndarray:
    """By name: g, m_3, mean_j m_j, A_3 and the paper's mean_j A_j."""
    match part:
        case eqs.GradientDirection():
            return g
        case eqs.MomentumDirection():
            return averages["momentum"][-1]
        case eqs.AggMoDirection():
            return np.mean(averages["momentum"], axis=0)
        case eqs.AdamDirection():
            return normalised_momenta(averages)[-1]
        case eqs.AdamAggMoDirection():
            return np.mean(normalised_momenta(averages), axis=0)
        case other:
            raise no_reference(other)


def weight_decay_term(part: Any, units: Any, p: np.ndarray) -> Any:
    """lambda exp(beta_5 a_r) p."""
    match part:
        case eqs.NoWeightDecay():
            return 0.0
        case eqs.WeightDecay():
            return multiplier(part.rate) * magnitude(part.magnitude, units) * p
        case other:
            raise no_reference(other)


def magnitude(part: Any, units: Any) -> Any:
    """exp(beta a), of the mean of a over the tensor if it is aggregated; or 1."""
    match part:
        case eqs.NoMagnitudeController():
            return 1.0
        case eqs.MagnitudeController(aggregation=eqs.PerElement()):
            return np.exp(multiplier(part.scale) * head(part.head, units))
        case eqs.MagnitudeController(aggregation=eqs.PerTensor()):
            return np.exp(multiplier(part.scale) * np.mean(head(part.head, units)))
        case other:
            raise no_reference(other)


def multiplier(scale: Any) -> Any:
    """beta: a fixed number, or exp(theta)."""
    match scale:
        case eqs.FixedScale():
            return scale.value
        case eqs.LearnedScale():
            return np.exp(scale.log)
        case other:
            raise no_reference(other)
