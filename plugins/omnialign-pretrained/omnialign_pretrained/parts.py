"""Which part of a model encodes a modality, and how its tokens become one vector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from omnialign import ModelError
from omnialign_pretrained.checkpoint import Origin, members, outline
from omnialign_pretrained.families import (
    CLASS_TOKENS,
    HEADS,
    INPUTS,
    MOVING,
    OWN,
    TOWER_WORDS,
    TOWERS,
    Family,
    Pooling,
    family_of,
)


@dataclass(frozen=True)
class Part:
    """What is taken of a model."""

    path: str
    """Of the encoder in the model; empty where it is all of it."""
    keep: tuple[str, ...]
    """Paths of the members that it takes."""
    without: tuple[str, ...]
    """Paths of heads that are not used."""
    settings: Any
    """The encoder's part of the configuration."""
    pooling: Pooling
    num_marks: int
    """Tokens before those of the sample itself: the class token, registers."""
    width: int


def find_part(origin: Origin, config: Any, modality: str, pooling: Pooling | None) -> Part:
    """What to take of a model for a modality; `pooling` None is the usual one.

    Raises `ModelError` where the model does not encode the modality, or has no such pooling.
    """
    whole = outline(config, origin)
    family = family_of(config)
    names = members(whole)
    path = _path(config, family, modality, names)
    part = None if path is None else whole.get_submodule(path)
    main_input = getattr(part, "main_input_name", whole.main_input_name)
    if path is None or part is None or not _takes(config.model_type, main_input, modality):
        has_towers = bool(set(names) & set(TOWERS.values()))
        towers = [m for m in TOWERS if has_towers and _path(config, family, m, names)]
        raise ModelError(
            f"'{origin.model}' does not encode {modality}: a {config.model_type} model "
            + (f"has towers of {', '.join(towers)}" if towers else f"takes {main_input}")
        )
    settings = getattr(part, "config", config)
    has_class_token = _has_class_token(part, family, main_input)
    usual = "cls" if has_class_token and main_input != "input_ids" else "mean"
    chosen: Pooling = pooling or family.pooling.get(modality) or usual
    features = hasattr(whole, f"get_{modality}_features")
    valid = [
        kind
        for kind in get_args(Pooling)
        if (kind != "cls" or has_class_token) and (kind != "projected" or features)
    ]
    if chosen not in valid:
        raise ModelError(
            f"'{origin.model}': a {config.model_type} model has no pooling '{chosen}' of "
            f"{modality}; valid: {', '.join(valid)}"
        )
    keep = [path, *(name for name in names if path == "encoder" and name == "shared")]
    if chosen == "projected":
        keep = [name for name in names if name.startswith(TOWER_WORDS[modality])]
    heads = HEADS if chosen not in OWN else HEADS - {"pooler"}
    idle = [name for name in sorted(heads) if _has_weights(getattr(part, name, None))]
    return Part(
        path,
        tuple(keep),
        tuple(f"{path}.{name}".removeprefix(".") for name in idle),
        settings,
        chosen,
        0 if main_input == "input_ids" else _num_marks(part, settings, has_class_token),
        _width(config, settings, chosen, family, modality),
    )


def _path(config: Any, family: Family, modality: str, names: list[str]) -> str | None:
    """Where a model, which consists of `names`, keeps the encoder of a modality."""
    if modality in family.parts:
        return family.parts[modality]
    towers = set(names) & set(TOWERS.values())
    if towers:
        moves = modality == "video" and config.model_type in MOVING
        usual = TOWERS.get("image" if moves else modality)
        return usual if usual in towers else None
    return "encoder" if {"encoder", "decoder"} <= set(names) else ""


def _has_weights(module: Any) -> bool:
    return module is not None and any(True for _ in module.parameters())


def _takes(kind: str, main_input: str, modality: str) -> bool:
    if main_input == "pixel_values" and modality in ("image", "video"):
        return (modality == "video") == (kind in MOVING)
    return main_input in INPUTS[modality]


def _has_class_token(part: Any, family: Family, main_input: str) -> bool:
    if main_input == "input_ids":
        return True
    if family.has_class_token is not None:
        return family.has_class_token
    names = {name.rpartition(".")[2] for name, _ in part.named_parameters()}
    return bool(names & CLASS_TOKENS)


def _num_marks(part: Any, settings: Any, has_class_token: bool) -> int:
    names = {name.rpartition(".")[2] for name, _ in part.named_parameters()}
    registers = getattr(settings, "num_register_tokens", 0) if has_class_token else 0
    return int(has_class_token) + registers + ("distillation_token" in names)


def _width(config: Any, settings: Any, pooling: str, family: Family, modality: str) -> int:
    if pooling == "projected" and hasattr(config, "projection_dim"):
        return config.projection_dim
    if pooling == "model" and modality in family.widths:
        return getattr(settings, family.widths[modality])
    return getattr(settings, "hidden_size", None) or settings.hidden_sizes[-1]
