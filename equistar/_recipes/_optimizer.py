"""Which optimizer is meta-trained, from which parts."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax.nn.initializers as jinit
import jax.tree_util as jtu
from jaxtyping import PRNGKeyArray, PyTree

from .._components import (
    AbstractAggregation,
    AbstractDirection,
    AbstractPreconditioner,
    AdamAggMoDirection,
    AdamDirection,
    AggMoDirection,
    BlackboxTerm,
    EMAPreconditioner,
    GradientDirection,
    GradientScale,
    Initializer,
    MomentumDirection,
    NoMagnitudeController,
    NominalTerm,
    NoPreconditioner,
    PerElement,
    PerTensor,
    release_init,
)
from .._meta_training import all_but
from .._optimizers import (
    AbstractLearnedOptimizer,
    AbstractOptimizer,
    AdaptiveSTAR,
    Blackbox,
    HyperparamController,
    LearnedOptimizer,
    STAR,
)
from .._serialisation import load_finite, weights_path


_DIRECTIONS: dict[str, Callable[[], AbstractDirection]] = {
    "adam-aggmo": AdamAggMoDirection,
    "adam": AdamDirection,
    "aggmo": AggMoDirection,
    "sgdm": MomentumDirection,
    "sgd": GradientDirection,
}
_PRECONDITIONERS: dict[str, AbstractPreconditioner] = {
    "rms": EMAPreconditioner(),
    "gradient": GradientScale(),
    "none": NoPreconditioner(),
}
_AGGREGATIONS: dict[str, AbstractAggregation] = {
    "element": PerElement(),
    "tensor": PerTensor(),
}
_DIRECTION_INITS: dict[str, Initializer] = {"zero": jinit.zeros, "release": release_init}
# What "own" means: the nominal direction and the preconditioner of each variant.
_OWN = {
    "star": ("adam-aggmo", "rms"),
    "blackbox": ("none", "none"),
    "hyperparam": ("adam-aggmo", "none"),
    "adaptive": ("adam-aggmo", "gradient"),
}

_Nominal = Literal["own", "none", "adam-aggmo", "adam", "aggmo", "sgdm", "sgd"]


@dataclass(frozen=True)
class OptimizerRecipe:
    """The learned optimizer."""

    optimizer: Literal["star", "blackbox", "hyperparam", "adaptive"] = "star"
    """The learned optimizer to meta-train: star has a blackbox and a nominal term,
    blackbox the former alone, hyperparam the latter alone; adaptive is star with a gain
    for each tensor and a fixed point."""
    nominal: _Nominal = "own"
    """Direction of the nominal term; none removes it."""
    preconditioner: Literal["own", "rms", "gradient", "none"] = "own"
    """On the blackbox term's output: star's is rms, adaptive's gradient."""
    magnitudes: Literal["learned", "fixed"] = "learned"
    """Whether the network also writes the size of each term."""
    aggregation: Literal["element", "tensor"] = "element"
    """Whether each element has sizes of its own, or each tensor."""
    direction_init: Literal["zero", "release"] = "zero"
    """Start of the blackbox term's direction: zero starts as the nominal optimizer, release
    as the released implementation does, under which some seeds diverge at once."""
    nominal_scale: float = 1e-3
    """beta_1, the learning rate of the nominal term, if there is one."""
    blackbox_scale: float = 1e-3
    """beta_3, the size of the blackbox term, if there is one."""
    magnitude_scale: float = 1e-3
    """beta_2 and beta_4: how much the network can change those two. At .1 it really can."""
    width: int = 4
    """Hidden units in each of the network's two layers."""
    start_from: str = ""
    """A weights file, or the name of a pretrained optimizer, to go on from; what stands
    above is of the file then."""
    hold: tuple[Literal["network", "blackbox", "nominal", "gain", "accumulators"], ...] = ()
    """Parts that are not meta-trained but stay as they are: --hold network blackbox."""

    def build(self, *, key: PRNGKeyArray) -> AbstractOptimizer:
        """The optimizer before its meta-training."""
        if self.start_from:
            return load_finite(weights_path(self.start_from))
        optimizer = self._fresh(key)
        if self.magnitudes == "learned":
            return optimizer
        terms = {"blackbox": optimizer.blackbox, "nominal": optimizer.nominal}
        sized = BlackboxTerm, NominalTerm
        there = [name for name, term in terms.items() if isinstance(term, sized)]
        sizes = lambda o: [getattr(o, name).magnitude for name in there]
        fixed = eqx.tree_at(sizes, optimizer, [NoMagnitudeController() for _ in there])
        if "blackbox" in there:
            return fixed
        # The network has nothing left to write.
        return LearnedOptimizer(nominal=fixed.nominal)

    def start_contents(self) -> str:
        """A digest of the file that it starts from."""
        contents = weights_path(self.start_from).read_bytes()
        return hashlib.sha256(contents).hexdigest()[:16]

    def check(self) -> None:
        """Raises a `ValueError` for parts that do not go together."""
        nominal, preconditioner = self._parts()
        if self.optimizer == "hyperparam" and nominal == "none":
            raise ValueError(
                "hyperparam without a nominal term makes no updates: use another `nominal`."
            )
        fixed = self.magnitudes == "fixed"
        if self.optimizer == "hyperparam" and fixed and nominal == "sgd":
            raise ValueError(
                "hyperparam of fixed magnitudes and the gradient has nothing to learn: use "
                "another `nominal`, or `magnitudes` learned."
            )
        if self.optimizer == "adaptive" and nominal == "none":
            raise ValueError("adaptive needs a nominal term: use another `nominal`.")
        if self.optimizer == "hyperparam" and preconditioner != "none":
            raise ValueError(
                "hyperparam has no blackbox term to precondition: leave `preconditioner`."
            )
        for name in ("nominal_scale", "blackbox_scale", "magnitude_scale"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"`{name}` must be finite; got {getattr(self, name)}.")
        if self.width < 1:
            raise ValueError(f"`width` must be at least 1; got {self.width}.")

    def trainable(self, theta: PyTree) -> PyTree:
        """What of the optimizer is meta-trained, for `meta_train`."""
        if not self.hold:
            return eqx.is_inexact_array
        if not isinstance(theta, AbstractLearnedOptimizer):
            raise ValueError("`hold` needs an optimizer of parts, say star.")
        for name in self.hold:
            if not jtu.tree_leaves(eqx.filter(getattr(theta, name), eqx.is_inexact_array)):
                raise ValueError(
                    f"Nothing of {type(theta).__name__}'s {name} is learned: leave it out "
                    "of `hold`."
                )
        return all_but(theta, lambda o: tuple(getattr(o, name) for name in self.hold))

    def _parts(self) -> tuple[str, str]:
        own_nominal, own_preconditioner = _OWN[self.optimizer]
        nominal = own_nominal if self.nominal == "own" else self.nominal
        own = self.preconditioner == "own"
        return nominal, own_preconditioner if own else self.preconditioner

    def _fresh(self, key: PRNGKeyArray) -> AbstractLearnedOptimizer:
        self.check()
        nominal, name = self._parts()
        preconditioner = _PRECONDITIONERS[name]
        aggregation = _AGGREGATIONS[self.aggregation]
        if self.optimizer == "hyperparam":
            return HyperparamController(
                direction=_DIRECTIONS[nominal](),
                aggregation=aggregation,
                nominal_scale=self.nominal_scale,
                magnitude_scale=self.magnitude_scale,
                width=self.width,
                key=key,
            )
        if nominal == "none":
            return Blackbox(
                preconditioner=preconditioner,
                aggregation=aggregation,
                blackbox_scale=self.blackbox_scale,
                magnitude_scale=self.magnitude_scale,
                width=self.width,
                direction_init=_DIRECTION_INITS[self.direction_init],
                key=key,
            )
        make = AdaptiveSTAR if self.optimizer == "adaptive" else STAR
        return make(
            direction=_DIRECTIONS[nominal](),
            preconditioner=preconditioner,
            aggregation=aggregation,
            nominal_scale=self.nominal_scale,
            blackbox_scale=self.blackbox_scale,
            magnitude_scale=self.magnitude_scale,
            width=self.width,
            direction_init=_DIRECTION_INITS[self.direction_init],
            key=key,
        )
