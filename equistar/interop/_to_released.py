"""Weights of the released implementation, written."""

from typing import Any, NamedTuple

import numpy as np

from .._components import (
    AbstractAccumulator,
    AbstractMagnitude,
    AbstractMovingAverage,
    AdafactorFeatures,
    BlackboxMLP,
    BlackboxTerm,
    EMAPreconditioner,
    FactoredSecondMoment,
    Head,
    MagnitudeController,
    Momentum,
    NoBiasCorrection,
    NoBlackbox,
    NoGain,
    NoMagnitudeController,
    NominalTerm,
    NoNominal,
    NoPreconditioner,
    NoWeightDecay,
    PerElement,
    PerTensor,
    SecondMoment,
    WeightDecay,
)
from .._optimizers import AbstractLearnedOptimizer, SampledMeans
from ._assemble import DIRECTIONS
from ._order import kind_order


class Released(NamedTuple):
    """An optimizer as the released implementation holds it.

    **Attributes:**

    - `theta`: arrays by name, as [`equistar.interop.from_learned_optimization`][] takes
        them.
    - `cls`: the name of its class.
    - `kwargs`: the arguments of that class's constructor.
    """

    theta: dict[str, np.ndarray]
    cls: str
    kwargs: dict[str, Any]

    @property
    def nested(self) -> dict[str, Any]:
        """`theta` as the released classes take it: `{"nn": {"~": {"w0": ...}}, ...}`."""
        nn = {k[3:]: v for k, v in self.theta.items() if k.startswith("nn/")}
        others = {k: v for k, v in self.theta.items() if not k.startswith("nn/")}
        return {**others, "nn": {"~": nn}}


def to_learned_optimization(optimizer: AbstractLearnedOptimizer) -> Released:
    """An optimizer of ours as meta-parameters of Google's `learned_optimization`.

    Heads that the layout wants and the optimizer lacks are written as zeros, and turned
    off by the arguments: `from_learned_optimization(r.theta, cls=r.cls, **r.kwargs)` makes
    the same updates as `optimizer`.

    **Arguments:**

    - `optimizer`: [`equistar.Blackbox`][], [`equistar.STAR`][],
        [`equistar.HyperparamController`][], or another one of the same parts.

    **Returns:**

    A [`equistar.interop.Released`][]. A blackbox term alone is an `AdafacMLPLOpt`,
    everything else an `MLPNomLOpt`.

    **Raises:**

    `ValueError` if a part has no counterpart there, a weight is not finite, or it is a
    batch of optimizers.
    """
    if not isinstance(optimizer, AbstractLearnedOptimizer):
        raise ValueError(
            f"Only a learned optimizer itself has a released layout, say STAR or Blackbox; "
            f"got {optimizer!r:.40}."
        )
    if isinstance(optimizer, SampledMeans):
        raise ValueError(
            "The released layout takes means over all elements: export its `optimizer`, "
            "the one inside of SampledMeans."
        )
    # The decays first: the order of a network's inputs is that of so many.
    network = _network(optimizer)
    theta = _offsets(optimizer.accumulators) | _trunk(network)
    blackbox = _blackbox(optimizer)
    nominal, decay = _nominal(optimizer), _weight_decay(optimizer)
    width, depth = network.weights[0].shape[1], len(network.weights)
    heads = [*blackbox.heads, *nominal.heads, *decay.heads]
    kwargs = blackbox.kwargs | nominal.kwargs | decay.kwargs
    betas = blackbox.beta, nominal.beta, decay.beta
    cls = "MLPNomLOpt"
    plain = not blackbox.kwargs["normalize_blackbox"]
    plain = plain and not blackbox.kwargs["aggregate_magnitude"]
    if plain and isinstance(optimizer.nominal, NoNominal):
        if isinstance(optimizer.weight_decay, NoWeightDecay):
            cls, heads, kwargs = "AdafacMLPLOpt", heads[:2], {}
    kwargs["step_mult"] = blackbox.step
    kwargs["exp_mult"] = betas[0] if cls == "AdafacMLPLOpt" else betas
    kwargs |= {"hidden_size": width, "hidden_layers": depth}
    theta |= _heads(heads, width, depth)
    theta = {name: x.astype(theta["nn/w0"].dtype) for name, x in theta.items()}
    if not all(np.all(np.isfinite(x)) for x in theta.values()):
        raise ValueError("The optimizer's weights are not all finite: take an earlier one.")
    return Released(theta, cls, kwargs)


class _Term(NamedTuple):
    """A term's heads, `None` for those that it lacks, and its arguments."""

    heads: list[Head | None]
    beta: float
    kwargs: dict[str, Any]
    step: float = 0.0


def _network(optimizer: AbstractLearnedOptimizer) -> BlackboxMLP:
    """The network, of an optimizer whose other parts have counterparts."""
    network = optimizer.network
    if type(optimizer.features) is not AdafactorFeatures:
        raise _no_counterpart(optimizer.features)
    if optimizer.features != AdafactorFeatures():
        raise ValueError("The released layout has the standard time scales only.")
    _check_is(optimizer.gain, NoGain)
    if type(network) is not BlackboxMLP:
        raise _no_counterpart(network)
    if any(w.ndim != 2 for w in network.weights):
        raise ValueError(
            "These are several optimizers in one, and the released layout holds one: pass "
            "each alone, the first as `jax.tree.map(lambda x: x[0], optimizer)`."
        )
    return network


def _trunk(network: BlackboxMLP) -> dict[str, np.ndarray]:
    if len({w.shape[1] for w in network.weights}) > 1:
        raise ValueError("The released layout has hidden layers of one width only.")
    weights = [np.asarray(w) for w in network.weights]
    # Ours has its inputs by kind, theirs in the paper's order.
    weights[0] = weights[0][np.argsort(kind_order(3))]
    named = {f"nn/w{i}": w for i, w in enumerate(weights)}
    return named | {f"nn/b{i}": np.asarray(b) for i, b in enumerate(network.biases)}


def _offsets(bank: dict[str, AbstractAccumulator]) -> dict[str, np.ndarray]:
    standard: dict[str, tuple[str, AbstractMovingAverage]] = {
        "momentum_decays": ("momentum", Momentum()),
        "rms_decays": ("second_moment", SecondMoment()),
        "adafactor_decays": ("factored", FactoredSecondMoment()),
    }
    offsets = {}
    for key, (name, theirs) in standard.items():
        ours = bank[name]
        if (
            not isinstance(ours, AbstractMovingAverage)
            or type(ours) is not type(theirs)
            or ours.decays != theirs.decays
        ):
            raise ValueError(
                f"The accumulator '{name}' has no counterpart in the released layout: only "
                f"{type(theirs).__name__}({theirs.decays}) has."
            )
        _check_is(ours.correction, NoBiasCorrection)
        offsets[key] = np.asarray(ours.offsets)
    return offsets


def _heads(heads: list[Head | None], width: int, depth: int) -> dict[str, np.ndarray]:
    blank = np.zeros(width), np.zeros(())
    arrays = [blank if h is None else (np.asarray(h.weight), h.bias) for h in heads]
    weights, biases = zip(*arrays, strict=True)
    last = {f"nn/w{depth}": np.stack(weights, axis=1)}
    return last | {f"nn/b{depth}": np.array([float(b) for b in biases])}


def _blackbox(optimizer: AbstractLearnedOptimizer) -> _Term:
    off = {"normalize_blackbox": False, "aggregate_magnitude": False}
    _check_is(optimizer.blackbox, NoBlackbox, BlackboxTerm)
    match optimizer.blackbox:
        case NoBlackbox():
            return _Term([None, None], 0.0, off)
        case BlackboxTerm() as term:
            _check_is(term.preconditioner, NoPreconditioner, EMAPreconditioner)
            head, beta, aggregated = _controller(term.magnitude)
            normalised = isinstance(term.preconditioner, EMAPreconditioner)
            kwargs = {"normalize_blackbox": normalised, "aggregate_magnitude": aggregated}
            return _Term([term.direction, head], beta, kwargs, float(term.scale()))
        case term:
            raise _no_counterpart(term)


def _nominal(optimizer: AbstractLearnedOptimizer) -> _Term:
    _check_is(optimizer.nominal, NoNominal, NominalTerm)
    match optimizer.nominal:
        case NoNominal():
            return _Term([None], 0.0, {"nominal_stepsize": 0.0})
        case NominalTerm() as term:
            names = {type(d): name for name, d in DIRECTIONS.items()}
            if type(term.direction) not in names:
                raise _no_counterpart(term.direction)
            head, beta, aggregated = _controller(term.magnitude)
            kwargs = {
                "nominal_stepsize": float(term.scale()),
                "nominal_grad_estimator": names[type(term.direction)],
                # Without a controller the release has the factor exp(beta) of its own:
                # one, for beta zero.
                "nominal_controller": head is not None,
                "aggregate_nom_magnitude": aggregated,
            }
            return _Term([head], beta, kwargs)
        case term:
            raise _no_counterpart(term)


def _weight_decay(optimizer: AbstractLearnedOptimizer) -> _Term:
    _check_is(optimizer.weight_decay, NoWeightDecay, WeightDecay)
    match optimizer.weight_decay:
        case NoWeightDecay():
            return _Term([None], 0.0, {"weight_decay": 0.0})
        case WeightDecay() as term:
            head, beta, aggregated = _controller(term.magnitude)
            kwargs = {
                "weight_decay": float(term.rate()),
                "regularization_controller": head is not None,
                "aggregate_reg_magnitude": aggregated,
            }
            return _Term([head], beta, kwargs)
        case term:
            raise _no_counterpart(term)


def _controller(magnitude: AbstractMagnitude) -> tuple[Head | None, float, bool]:
    _check_is(magnitude, NoMagnitudeController, MagnitudeController)
    match magnitude:
        case NoMagnitudeController():
            return None, 0.0, False
        case MagnitudeController():
            _check_is(magnitude.aggregation, PerElement, PerTensor)
            aggregated = isinstance(magnitude.aggregation, PerTensor)
            return magnitude.head, float(magnitude.scale()), aggregated
        case _:
            raise _no_counterpart(magnitude)


# What derives from a part of ours may compute something else.
def _check_is(part: Any, *kinds: type) -> None:
    if type(part) not in kinds:
        raise _no_counterpart(part)


def _no_counterpart(part: Any) -> ValueError:
    return ValueError(
        f"{type(part).__name__} has no counterpart in the released layout, which holds the "
        "parts of STAR, Blackbox and HyperparamController only. Use `equistar.save`."
    )
