"""A recipe's table before it is checked: it is read, paths are anchored, `--set` is applied."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from omnialign.errors import RecipeError

_BARE = {"train": "data", "test": "data", "rows": "data"}
"""What a bare string at these keys stands for; elsewhere it is the name of a choice."""


SCHEME = re.compile(r"[a-z][a-z0-9_.-]+:")
"""What begins the name of a model that is no folder: `hf:`."""


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a table; raises `RecipeError` that names the file and the fault."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}") from None


def anchor_paths(table: Any, folder: Path) -> None:
    """Makes relative values of `path` and `start_from` keys absolute.

    Behind a scheme, a name is a path where it begins with a dot or a tilde: `hf:./clip`.
    """
    entries = table.items() if isinstance(table, dict) else enumerate(table)
    for key, value in entries:
        if isinstance(value, dict | list):
            anchor_paths(value, folder)
        elif key in ("path", "start_from") and isinstance(value, str):
            scheme = SCHEME.match(value)
            begin = scheme.end() if scheme else 0
            if not scheme or value[begin:].startswith((".", "~")):
                path = (folder / Path(value[begin:]).expanduser()).resolve()
                table[key] = f"{value[:begin]}{path}"


def apply_override(table: dict[str, Any], override: str) -> None:
    """Sets one `key.to.set=value` in a recipe's table.

    The value is TOML, or else a plain string; a list is entered by position.
    """
    dotted, equals, text = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise RecipeError(f"--set wants key=value, as in train.num_steps=100; got '{override}'")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    holder = {keys[-1]: value}
    anchor_paths(holder, Path.cwd())
    value = holder[keys[-1]]
    place: Any = table
    for depth, key in enumerate(keys):
        position = _position(place, key, f"--set {dotted}: '{'.'.join(keys[:depth])}'")
        if depth == len(keys) - 1:
            place[position] = value
            return
        inner = place.get(position, {}) if isinstance(place, dict) else place[position]
        if isinstance(inner, str):
            inner = {_BARE.get(key, "name"): inner}
        place[position] = inner
        place = inner


def _position(place: Any, key: str, where: str) -> str | int:
    """The key, or the place in a list, where something is set."""
    if isinstance(place, dict):
        return key
    if not isinstance(place, list):
        raise RecipeError(f"{where} is a value, not a table")
    if not key.isdecimal() or int(key) >= len(place):
        raise RecipeError(f"{where} is a list of {len(place)}; '{key}' is no position in it")
    return int(key)
