"""From a TOML file to a checked recipe, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic
import tomli_w

from omnialign.errors import RecipeError, choices
from omnialign.options import check_options, explain
from omnialign.overrides import anchor_paths, apply_override, read_toml
from omnialign.recipe.tables import Choice, Data, Recipe, Rows, Tower
from omnialign.registry import Registry, registry


def load_recipe(
    source: Path | str, overrides: Sequence[str] = (), plugins: Registry | None = None
) -> Recipe:
    """Reads and checks a recipe file.

    Args:
        source: path of a TOML file, or the name of a shipped recipe.
        overrides: `key.to.set=value` strings; the value is TOML, or else a plain string. A list is
            entered by position: `pairs.0.weight=2`.
        plugins: what to check against; the installed ones by default.

    Relative values of keys called `path` or `start_from` start at the recipe file; in `overrides`,
    at the working directory. Raises `RecipeError` with every fault.
    """
    path = find_recipe(source)
    table = read_toml(path)
    anchor_paths(table, path.parent.resolve())
    for override in overrides:
        apply_override(table, override)
    return parse_recipe(table, str(path), plugins)


def parse_recipe(
    table: Mapping[str, Any], name: str = "recipe", plugins: Registry | None = None
) -> Recipe:
    """Checks a recipe that is already a table, and fills in every default."""
    try:
        recipe = Recipe.model_validate(table)
    except pydantic.ValidationError as error:
        raise RecipeError(explain(name, error, Recipe)) from None
    return _check_against_plugins(recipe, name, plugins or registry())


def _check_against_plugins(recipe: Recipe, name: str, plugins: Registry) -> Recipe:
    """Completes the options of all choices; refuses what nobody provides."""
    trained = recipe.modalities()
    unused = [m for m in recipe.towers if m not in trained]
    if unused:
        raise RecipeError(
            f"{name}: towers.{unused[0]} is in no pair; {choices(unused[0], trained)}; a tower of "
            "the model at start_from is kept beside them with frozen = 'tower'"
        )
    towers = {
        m: tower if recipe.start_from and not tower.encoder else complete_tower(m, tower, plugins)
        for m, tower in ((m, recipe.tower(m)) for m in trained)
    }
    data: dict[str, Data] = {}
    for key, entry in recipe.data.items():
        source = plugins.source(entry.source.name)
        options = check_options(f"{name}: data.{key}.source", source, entry.source.options)
        source_with_all = _choice(entry.source.name, options)
        data[key] = entry.model_copy(update={"source": source_with_all})
    for where, rows in _all_rows(recipe):
        if rows.data not in data:
            raise RecipeError(f"{name}: {where}: no data '{rows.data}'; {choices(rows.data, data)}")
        for key in rows.columns:
            if key not in trained:
                raise RecipeError(
                    f"{name}: {where}.columns: no pair trains '{key}'; {choices(key, trained)}"
                )
    for pair in recipe.pairs:
        if pair.modalities[0] == pair.modalities[1]:
            raise RecipeError(f"{name}: a pair of '{pair.modalities[0]}' with itself")
    _check_shared_temperatures(recipe, name)
    for evaluation in recipe.evaluations:
        for modality in evaluation.needs:
            if modality not in trained:
                raise RecipeError(
                    f"{name}: evaluation '{evaluation.name}' wants modality '{modality}', which no "
                    f"pair trains; {choices(modality, trained)}"
                )
    return recipe.model_copy(update={"towers": towers, "data": data})


def _check_shared_temperatures(recipe: Recipe, name: str) -> None:
    """Pairs that have one temperature have to agree on it."""
    first: dict[frozenset[str], int] = {}
    for i, pair in enumerate(recipe.pairs):
        sharing = frozenset(() if recipe.space.shared_temperature else pair.modalities)
        j = first.setdefault(sharing, i)
        for key in ("temperature", "learn_temperature", "min_temperature"):
            here, there = getattr(pair, key), getattr(recipe.pairs[j], key)
            if here != there:
                raise RecipeError(
                    f"{name}: pairs.{j} and pairs.{i} share one temperature, and want the same "
                    f"{key}; they have {there} and {here}"
                )


def complete_tower(modality: str, tower: Tower, plugins: Registry) -> Tower:
    """The tower with every default filled in; raises `RecipeError` for what nobody provides."""
    encoder = tower.encoder or Choice(name=plugins.modality(modality).default_encoder)
    options = plugins.encoder_options(modality, encoder.name, encoder.options)
    augmentations = [
        _choice(
            choice.name,
            check_options(
                f"{modality} augmentation '{choice.name}'",
                plugins.augmentation(modality, choice.name),
                choice.options,
            ),
        )
        for choice in tower.augmentations
    ]
    return tower.model_copy(
        update={
            "encoder": _choice(encoder.name, options),
            "augmentations": augmentations,
            "projection": tower.projection or "linear",
            "long_input": tower.long_input or plugins.modality(modality).long_input,
        }
    )


def _choice(name: str, options: Mapping[str, Any]) -> Choice:
    return Choice.model_validate({"name": name, **options})


def _all_rows(recipe: Recipe) -> list[tuple[str, Rows]]:
    found: list[tuple[str, Rows]] = []
    for i, pair in enumerate(recipe.pairs):
        found.append((f"pairs.{i}.train", pair.train))
        if pair.test:
            found.append((f"pairs.{i}.test", pair.test))
    found += [(f"evaluations.{i}.rows", e.rows) for i, e in enumerate(recipe.evaluations)]
    return found


def to_toml(recipe: Recipe) -> str:
    """The recipe as TOML, every default written out; absent values are left out."""
    return tomli_w.dumps(_without_none(recipe.model_dump(mode="json")))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return [_without_none(v) for v in value] if isinstance(value, list) else value


def shipped_recipes() -> dict[str, Path]:
    """The recipes that come with OmniAlign, by name."""
    here = Path(__file__).parents[1]
    folder = here / "recipes" if (here / "recipes").is_dir() else here.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def find_recipe(source: Path | str) -> Path:
    """The file of a recipe, given its path or the name of a shipped one."""
    if Path(source).is_file():
        return Path(source)
    shipped = shipped_recipes()
    if str(source) in shipped:
        return shipped[str(source)]
    raise RecipeError(
        f"no recipe file '{source}', and no shipped one; {choices(str(source), shipped)}"
    )
