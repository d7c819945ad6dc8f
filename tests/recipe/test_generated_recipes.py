"""Shipped recipes whose rows are generated train, and state their licence."""

from pathlib import Path

import pytest

from omnialign.engine.trainer import train
from omnialign.recipe import load_recipe, shipped_recipes

SIZES = {"scenes": "num_scenes", "protein_families": "num_proteins"}
"""The option of each generated source that says how many rows there are."""
GENERATED = [
    name
    for name in shipped_recipes()
    if all(data.source.name in SIZES for data in load_recipe(name).data.values())
]


def test_some_recipes_are_generated() -> None:
    assert {"image-text", "timeseries-text", "protein-text", "any-to-text"} <= set(GENERATED)


@pytest.mark.parametrize("name", GENERATED)
def test_the_licence_of_generated_rows_is_stated(name: str) -> None:
    assert {data.licence for data in load_recipe(name).data.values()} == {"CC0-1.0"}


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_recipe_trains_a_step(name: str, tmp_path: Path) -> None:
    sizes = [
        f"data.{row}.source.{SIZES[data.source.name]}=16"
        for row, data in load_recipe(name).data.items()
    ]
    small = load_recipe(name, [*sizes, "train.num_steps=1", "train.batch_size=8"])
    space = train(small, tmp_path / "run")
    assert set(space.towers) == set(small.modalities())
    assert (tmp_path / "run" / "model.safetensors").is_file()
