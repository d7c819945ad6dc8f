"""Writes the tables of docs/recipes.md from the recipe's types.

uv run python docs/recipe_tables.py
"""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from omnialign.recipe import Choice, Scalar, evaluations, tables

PAGE = Path(__file__).with_name("recipes.md")
PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SIGNS = {
    annotated_types.Ge: "≥",
    annotated_types.Gt: ">",
    annotated_types.Le: "≤",
    annotated_types.Lt: "<",
}
WORDS = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "true or false",
    "Choice": "choice",
    "Rows": "[rows](#rows)",
}


def described(kind: Any) -> str:
    """A type in a recipe writer's words."""
    if isinstance(kind, str):
        return kind
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return described(inside[0])
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in inside)
    if origin in (typing.Union, types.UnionType):
        if set(typing.get_args(Scalar)) <= set(inside):
            inside = ("value", *(k for k in inside if k not in typing.get_args(Scalar)))
        return " or ".join(described(k) for k in inside if k is not types.NoneType)
    if origin is list:
        return f"list of {described(inside[0])}"
    if origin is tuple:
        return f"[{', '.join(described(k) for k in inside)}]"
    if origin is dict:
        return f"table of {described(inside[1])}"
    return WORDS.get(kind.__name__, f"[{kind.__name__.lower()}](#{kind.__name__.lower()})")


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None or value == {} or isinstance(value, BaseModel):
        return "–"
    return f"`{json.dumps(value)}`"


def bounds(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(limit, kind.__name__.lower())}"
        for limit in field.metadata
        for kind, sign in SIGNS.items()
        if isinstance(limit, kind)
    ]
    return f" {', '.join(found)}" if found else ""


def table(model: type[BaseModel]) -> str:
    """A Markdown table with a row for each key of a recipe's table."""
    rows = ["| key | type | default | |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        kind = (described(field.annotation) + bounds(field)).replace("|", "\\|")
        rows.append(f"| `{name}` | {kind} | {default(field)} | {field.description or ''} |")
    return "\n".join(rows) + "\n"


def models() -> Iterable[type[BaseModel]]:
    """All tables that a recipe is made of."""
    own = [
        kind
        for module in (evaluations, tables)
        for kind in vars(module).values()
        if isinstance(kind, type) and kind.__module__ == module.__name__
    ]
    return [
        kind
        for kind in own
        if issubclass(kind, BaseModel)
        and kind is not evaluations.Table
        and not kind.__name__.startswith("_")
        and kind is not Choice
    ]


def written(page: str) -> str:
    """The page with every table made anew."""
    found = {model.__name__: table(model) for model in models()}
    return PLACE.sub(lambda place: place[1] + found[place[2]] + place[3], page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
