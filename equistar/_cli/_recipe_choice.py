"""Which recipe a command line begins with: its flags change that one."""

import pathlib
from collections.abc import Sequence

from rich.table import Table

from .._names import suggest
from .._recipes import NAMED_RECIPES, read_recipe, Recipe
from ._output import CommandError


_DEFAULT = "star-digits"


def chosen_recipe(arguments: Sequence[str]) -> Recipe:
    """The recipe that the arguments of `equistar meta-train` name, by name or by file.

    It is looked for before they are parsed, since it is what their defaults are.
    """
    named = arguments[0] if arguments and not arguments[0].startswith("-") else None
    file = _config(arguments)
    if file is None:
        return named_recipe(_DEFAULT if named is None else named)
    if named is not None:
        raise CommandError(f"Give the recipe {named} or --config {file}, not both.")
    try:
        return read_recipe(file)
    except ValueError as e:
        raise CommandError(str(e)) from e


def check_choice(arguments: Sequence[str], name: str | None) -> None:
    """Refuses a name that stands too late to be looked for."""
    if arguments and arguments[0].startswith("-") and name is not None:
        raise CommandError(
            f"The recipe's name must come first: equistar meta-train {name} ..."
        )


def named_recipe(name: str) -> Recipe:
    """The recipe of this name."""
    if name not in NAMED_RECIPES:
        raise CommandError(
            f"There is no recipe '{name}': {suggest(name, NAMED_RECIPES)}, or pass a file "
            "by --config."
        )
    return NAMED_RECIPES[name].recipe


def recipes_table() -> Table:
    """All recipes, a line each."""
    table = Table(title="equistar meta-train RECIPE")
    for heading in ("recipe", "what it is", "task"):
        table.add_column(heading)
    for name, entry in NAMED_RECIPES.items():
        table.add_row(name, entry.about, ", ".join(entry.recipe.tasks.task))
    return table


def _config(arguments: Sequence[str]) -> pathlib.Path | None:
    found = []
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--config" and equals:
            found.append(value)
        elif name == "--config" and i + 1 < len(arguments):
            found.append(arguments[i + 1])
    if len(found) > 1:
        raise CommandError(f"Give one --config; got {' and '.join(found)}.")
    return pathlib.Path(found[0]) if found else None
