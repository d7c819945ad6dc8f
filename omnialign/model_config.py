"""`config.json`: what a saved model says of itself, and what is said of a folder that has none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import pydantic

from omnialign.contract import LongInput
from omnialign.errors import ModelError
from omnialign.options import explain
from omnialign.recipe import Choice
from omnialign.registry import registry

FORMAT = 1
_FOREIGN = {"model_type", "architectures"}
"""What models of other libraries state in their `config.json`."""
_NAME_ON_A_HUB = re.compile(r"[\w.-]+/[\w.-]+")


class SavedTower(pydantic.BaseModel):
    """How a tower is rebuilt."""

    encoder: Choice
    projection: Literal["linear", "mlp", "identity"]
    long_input: LongInput


class ModelConfig(pydantic.BaseModel):
    """What `config.json` holds."""

    format: int
    dim: int
    pairs: list[tuple[str, str]]
    towers: dict[str, SavedTower]
    preprocessing: str
    fingerprint: str
    tower_fingerprints: dict[str, str] = {}
    plugins: dict[str, str]
    shared_temperature: bool = False
    matryoshka: list[int] = []
    biased_pairs: list[tuple[str, str]] = []
    truncated_to: int | None = None


def check_complete(folder: Path) -> None:
    """Raises `ModelError`, with what to do, where a folder holds no finished model of ours."""
    if not folder.is_dir():
        raise ModelError(
            f"no model folder at '{folder}'; give the --output of a training run"
            + (
                f", or if it is a name on the hub, {_schemes(folder)}"
                if _NAME_ON_A_HUB.fullmatch(str(folder))
                else ""
            )
        )
    if _is_foreign(folder / "config.json"):
        raise ModelError(
            f"'{folder}' holds a model that another library saved; {_schemes(folder)} "
            "(omnialign plugins lists them)"
        )
    for name in ("config.json", "model.safetensors"):
        if (folder / name).is_file():
            continue
        if (folder / "recipe.toml").is_file():
            raise ModelError(
                f"the run in '{folder}' has not come to its end: {name} is missing; go on with it: "
                f"omnialign train RECIPE --output {folder} --resume"
            )
        raise ModelError(
            f"'{folder}' holds no model: {name} is missing; give the --output of a training run, "
            "or a folder that a model was saved to"
        )


def _is_foreign(file: Path) -> bool:
    """Whether a `config.json` is that of another library."""
    try:
        table = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return (
        isinstance(table, dict) and "format" not in table and not table.keys().isdisjoint(_FOREIGN)
    )


def read_config(folder: Path) -> ModelConfig:
    """Raises `ModelError` where the file is damaged or of another version."""
    file = folder / "config.json"
    try:
        table = json.loads(file.read_text("utf-8"))
        found = table["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{file} is damaged ({type(error).__name__}: {error}); copy the model again"
        ) from None
    if found != FORMAT:
        raise ModelError(f"{file} has format {found}; this version of OmniAlign reads {FORMAT}")
    try:
        return ModelConfig.model_validate(table)
    except pydantic.ValidationError as error:
        raise ModelError(explain(str(file), error, ModelConfig)) from None


def _schemes(name: str | Path) -> str:
    """How a model is loaded that is not ours."""
    known = ", ".join(f"{scheme}:" for scheme in sorted(registry().formats)) or "none"
    return f"say SCHEME:{name} with the scheme of a plugin that reads it; installed: {known}"
