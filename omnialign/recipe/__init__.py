"""Recipes: TOML files that say what to train on what. Data, never imported.

`load_recipe` reads a file, applies `--set` overrides and checks everything against the types of
`tables` and against what is installed, so that a slip is found before any work begins.
"""

from omnialign.recipe.evaluations import (
    Evaluation,
    Queries,
    Retrieval,
    Rows,
    Scalar,
    ZeroShot,
)
from omnialign.recipe.loading import (
    complete_tower,
    find_recipe,
    load_recipe,
    parse_recipe,
    shipped_recipes,
    to_toml,
)
from omnialign.recipe.tables import Choice, Data, Lora, Pair, Recipe, Tower, Train

__all__ = [
    "Choice",
    "Data",
    "Evaluation",
    "Lora",
    "Pair",
    "Queries",
    "Recipe",
    "Retrieval",
    "Rows",
    "Scalar",
    "Tower",
    "Train",
    "ZeroShot",
    "complete_tower",
    "find_recipe",
    "load_recipe",
    "parse_recipe",
    "shipped_recipes",
    "to_toml",
]
