"""Meta-training runs as typed settings, that a file holds and that make the objects."""

from ._estimator import EstimatorRecipe as EstimatorRecipe
from ._file import read_recipe as read_recipe, recipe_text as recipe_text
from ._named import NAMED_RECIPES as NAMED_RECIPES, NamedRecipe as NamedRecipe
from ._optimizer import OptimizerRecipe as OptimizerRecipe
from ._outer import OuterRecipe as OuterRecipe
from ._recipe import Recipe as Recipe
from ._tasks import FAMILIES as FAMILIES, TasksRecipe as TasksRecipe
