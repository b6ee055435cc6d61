"""Recipes that have a name."""

from dataclasses import dataclass, replace

from ..tasks import SUITES
from ._estimator import EstimatorRecipe
from ._optimizer import OptimizerRecipe
from ._outer import OuterRecipe
from ._recipe import Recipe
from ._tasks import TasksRecipe


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe, and one line on it."""

    about: str
    recipe: Recipe


# The paper's, for which the network was 784-128-128-10. Of the numbers here it leaves open
# how many pairs and meta-steps there were: these two are ours.
_STAR = Recipe(
    tasks=TasksRecipe(task=("fashion_mnist_mlp",)),
    estimator=EstimatorRecipe(window=50, pairs=16, sigma=0.01, length=2000),
    outer=OuterRecipe(learning_rate=1e-4, weight_decay=0.1, clip=1.0),
    steps=50_000,
)


def _without_decay(recipe: Recipe) -> Recipe:
    return replace(recipe, outer=replace(recipe.outer, weight_decay=0.0))


def _part(about: str, **parts: str) -> NamedRecipe:
    """The paper's STAR with other parts."""
    optimizer = OptimizerRecipe(**parts)  # pyright: ignore
    return NamedRecipe(about, replace(_STAR, optimizer=optimizer))


def _outer(about: str, **settings: float | str) -> NamedRecipe:
    """The paper's STAR with another outer optimizer."""
    outer = replace(_STAR.outer, **settings)  # pyright: ignore
    return NamedRecipe(about, replace(_STAR, outer=outer))


_FAST = Recipe(
    outer=OuterRecipe(learning_rate=2e-3, schedule="cosine", warm_up=400, final_rate=0.05),
    steps=2000,
)

# What the pretrained optimizers are made by: the paper's episodes, on a small network.
_SMALL = Recipe(
    estimator=EstimatorRecipe(window=50, pairs=8, sigma=0.01, length=2000),
    outer=OuterRecipe(learning_rate=1e-3, schedule="cosine", final_rate=0.05),
    steps=3000,
)


def _small(about: str, decay: float, **parts: str | float) -> NamedRecipe:
    """The pretrained STAR with other parts, and another outer weight decay."""
    optimizer = OptimizerRecipe(**parts)  # pyright: ignore
    outer = replace(_SMALL.outer, weight_decay=decay)
    return NamedRecipe(about, replace(_SMALL, optimizer=optimizer, outer=outer))


# Many small and different tasks, some in other units.
_VARIED = ("digits_mlp", *SUITES["varied"])
# Mean losses of a fresh AdaptiveSTAR, see docs/experiments.md.
_FRESH_LOSSES = (
    *(0.0484, 0.0499, 0.0448, 0.0537, 0.0276, 0.0746, 0.0854, 0.189, 1.19, 0.595),
    *(0.211, 2.61, 0.00662, 0.00778, 0.00899, 0.252, 0.0636, 0.00718, 0.0699, 0.536),
)
_BEST = Recipe(
    optimizer=OptimizerRecipe(
        "adaptive",
        nominal_scale=1e-2,
        blackbox_scale=1e-2,
        magnitude_scale=0.1,
    ),
    tasks=TasksRecipe(
        task=_VARIED, task_weights=(1.0,) * len(_VARIED), references=_FRESH_LOSSES
    ),
    # Whole episodes, for a training that got stuck still has a slope in them. What is lost
    # against a fresh start counts more than what is won.
    estimator=EstimatorRecipe(
        "full-es", pairs=4, sigma=0.03, length=1000, objective="excess"
    ),
    outer=OuterRecipe(learning_rate=4e-3, schedule="cosine", warm_up=5, final_rate=0.05),
    steps=120,
)

NAMED_RECIPES: dict[str, NamedRecipe] = {
    "star-digits": NamedRecipe(
        "STAR on a small network on digits; what runs without a name.", Recipe()
    ),
    "star-fast": NamedRecipe("STAR on digits, with a cosine: minutes on a CPU.", _FAST),
    "star-small": NamedRecipe(
        "The pretrained star: the paper's episodes, on digits; ten minutes on a CPU.",
        _SMALL,
    ),
    "star-wd05-small": _small("The pretrained star-wd05, on digits.", 0.5),
    "blackbox-small": _small(
        "The pretrained blackbox, on digits.", 0.0, optimizer="blackbox"
    ),
    "hyperparam-small": _small(
        "The pretrained hyperparam, on digits, with sizes that can be learned in minutes.",
        0.0,
        optimizer="hyperparam",
        magnitude_scale=0.1,
    ),
    "star-best": NamedRecipe(
        "The pretrained star-best, on twenty tasks: half an hour on a CPU.", _BEST
    ),
    "star-paper": NamedRecipe("The STAR paper's STAR, on Fashion-MNIST.", _STAR),
    "blackbox-paper": NamedRecipe(
        "The STAR paper's blackbox optimizer.",
        _without_decay(replace(_STAR, optimizer=OptimizerRecipe("blackbox"))),
    ),
    "hyperparam-paper": NamedRecipe(
        "The STAR paper's hyperparameter controller.",
        _without_decay(replace(_STAR, optimizer=OptimizerRecipe("hyperparam"))),
    ),
    "star-no-preconditioner": _part(
        "star-paper without the preconditioner.", preconditioner="none"
    ),
    "star-no-nominal": _part("star-paper without the nominal term.", nominal="none"),
    "star-no-magnitudes": _part("star-paper with terms of fixed size.", magnitudes="fixed"),
    "star-nominal-adam": _part("star-paper along Adam.", nominal="adam"),
    "star-nominal-aggmo": _part("star-paper along AggMo.", nominal="aggmo"),
    "star-nominal-sgdm": _part("star-paper along momentum.", nominal="sgdm"),
    "star-nominal-sgd": _part("star-paper along the gradient.", nominal="sgd"),
    "star-wd0": _outer("star-paper without outer weight decay.", weight_decay=0.0),
    "star-wd05": _outer("star-paper with outer weight decay 0.5.", weight_decay=0.5),
    "star-wd1": _outer("star-paper with outer weight decay 1.", weight_decay=1.0),
    "star-wd-everything": _outer(
        "star-paper with all of it decaying, as in the release.", decay="everything"
    ),
}
