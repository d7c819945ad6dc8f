"""The JSON Schema of recipes, for editors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from omnialign.errors import PluginError
from omnialign.options import options_model
from omnialign.recipe.tables import Recipe
from omnialign.registry import Registry


def recipe_schema(plugins: Registry) -> dict[str, Any]:
    """JSON Schema of recipes, for editors: choices list what is installed, with their options."""
    schema = Recipe.model_json_schema()
    definitions = schema["$defs"]
    definitions["Rows"] = {"anyOf": [{"type": "string"}, definitions["Rows"]]}
    definitions["Data"]["properties"]["source"] = _choice_schema(plugins.sources, plugins.source)
    tower = definitions.pop("Tower")
    towers: dict[str, Any] = {}
    for name, modality in sorted(plugins.modalities.items()):
        augmentations = _choice_schema(modality.augmentations, partial(plugins.augmentation, name))
        properties = {
            **tower["properties"],
            "encoder": _choice_schema(plugins.encoders(name), partial(plugins.encoder, name)),
            "augmentations": {"type": "array", "items": augmentations},
        }
        towers[name] = {**tower, "properties": properties}
    schema["properties"]["towers"] = {
        "type": "object",
        "properties": towers,
        "additionalProperties": False,
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def _choice_schema(names: Iterable[str], find: Callable[[str], Any]) -> dict[str, Any]:
    """A bare name, or a table with the options of what `find` gives for it.

    What cannot be imported here (an optional dependency is missing) is left out.
    """
    bare: list[str] = []
    tables: list[dict[str, Any]] = []
    for name in names:
        try:
            target = find(name)
        except PluginError:
            continue
        bare.append(name)
        model = options_model(target).model_json_schema()
        tables.append(
            {
                "type": "object",
                "description": (target.__doc__ or "").strip().split("\n")[0],
                "properties": {"name": {"const": name}, **model.get("properties", {})},
                "required": ["name", *model.get("required", [])],
                "additionalProperties": False,
            }
        )
    return {"anyOf": [{"enum": bare}, *tables]}
