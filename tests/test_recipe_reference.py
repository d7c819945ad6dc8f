"""The reference of recipes in the documentation is that of the types."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "docs" / "recipe_tables.py"

spec = importlib.util.spec_from_file_location("recipe_tables", SCRIPT)
assert spec is not None
assert spec.loader is not None
recipe_tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe_tables)


def test_every_table_of_a_recipe_has_its_place() -> None:
    page = recipe_tables.PAGE.read_text("utf-8")
    names = [model.__name__ for model in recipe_tables.models()]
    assert {"Recipe", "Pair", "Train"} <= set(names)
    assert [name for name in names if f"<!-- table: {name} -->" not in page] == []


def test_the_tables_are_those_of_the_types() -> None:
    page = recipe_tables.PAGE.read_text("utf-8")
    assert recipe_tables.written(page) == page, "run: uv run python docs/recipe_tables.py"
