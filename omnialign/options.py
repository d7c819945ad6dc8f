"""Explicit, typed options: what a callable takes is what a recipe may say, and nothing else."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import pydantic

from omnialign.errors import RecipeError, choices

BRANCH = re.compile(r"(constrained-)?(int|float|str|bool)|(literal|list)\[.*\]")
"""What pydantic adds to the place of a fault for each alternative of a type."""


@cache
def options_model(target: Callable[..., Any]) -> type[pydantic.BaseModel]:
    """The keywords of `target` as a pydantic model that refuses anything else."""
    constructor = target.__init__ if inspect.isclass(target) else target
    hints = typing.get_type_hints(constructor)
    fields: dict[str, Any] = {
        name: (
            hints.get(name, Any),
            ... if parameter.default is parameter.empty else parameter.default,
        )
        for name, parameter in inspect.signature(target).parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    }
    config = pydantic.ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, protected_namespaces=()
    )
    return pydantic.create_model(
        getattr(target, "__name__", "Options"), __config__=config, **fields
    )


def check_options(
    what: str, target: Callable[..., Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """All options of `target`, defaults filled in.

    Raises `RecipeError` that names `what`, the option, the value and what is valid.
    """
    model = options_model(target)
    try:
        checked = model.model_validate(dict(given))
    except pydantic.ValidationError as error:
        raise RecipeError(explain(what, error, model)) from None
    return {name: getattr(checked, name) for name in model.model_fields}


def explain(what: str, error: pydantic.ValidationError, model: type[pydantic.BaseModel]) -> str:
    """One line for each fault of a validation, with what would be valid."""
    lines: list[str] = []
    for fault in _one_of_each(error.errors()):
        where = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            owner = _model_at(model, fault["loc"][:-1])
            valid = choices(str(fault["loc"][-1]), owner.model_fields if owner else [])
            lines.append(f"{what}: unknown key '{where}'; {valid}")
        elif fault["type"] == "missing":
            lines.append(f"{what}: '{where}' is missing")
        elif fault["type"] == "union_tag_not_found":
            lines.append(f"{what}: '{where}' wants a key {fault.get('ctx', {})['discriminator']}")
        elif fault["type"] == "value_error":  # of our own, which says the values that count
            lines.append(": ".join(filter(None, (what, where, str(fault["ctx"]["error"])))))
        else:
            lines.append(f"{what}: '{where}' is {fault['input']!r}: {fault['msg']}")
    return "\n".join(lines)


def _one_of_each(faults: Sequence[Any]) -> list[Any]:
    """Faults of the alternatives of one value as one fault, which says them all."""
    found: dict[tuple[Any, ...], Any] = {}
    for fault in faults:
        loc = fault["loc"]
        is_branch = bool(loc) and isinstance(loc[-1], str) and BRANCH.fullmatch(loc[-1])
        if not is_branch:
            found[(*loc, None)] = fault
        elif loc[:-1] in found:
            found[loc[:-1]]["msg"] += f"; or: {fault['msg']}"
        else:
            found[loc[:-1]] = {**fault, "loc": loc[:-1]}
    return list(found.values())


def _model_at(
    model: type[pydantic.BaseModel], path: tuple[int | str, ...]
) -> type[pydantic.BaseModel] | None:
    """The model that a location in a validation error lies in; a union's tag names its member."""
    found: Any = model
    for part in path:
        if _is_model(found):
            field = found.model_fields.get(str(part))
            found = field.annotation if field else None
        else:
            found = next((m for m in _members(found) if part in _tags(m)), None) or next(
                iter(typing.get_args(found)[-1:]), None
            )
        if typing.get_origin(found) is typing.Annotated:
            found = typing.get_args(found)[0]
        if type(None) in typing.get_args(found):
            found = next(iter(_members(found)), None)
    return found if _is_model(found) else None


def _members(union: Any) -> list[type[pydantic.BaseModel]]:
    return [member for member in typing.get_args(union) if _is_model(member)]


def _tags(model: type[pydantic.BaseModel]) -> set[Any]:
    """The values of its Literal fields."""
    return {tag for f in model.model_fields.values() for tag in typing.get_args(f.annotation)}


def _is_model(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, pydantic.BaseModel)
