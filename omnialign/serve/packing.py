"""Encoder inputs as JSON and safetensors: they come from where hostile files are decoded."""

from __future__ import annotations

from typing import Any, cast

from safetensors.torch import load, save
from torch import Tensor, contiguous_format

from omnialign.errors import OmniAlignError


def packed(inputs: Any) -> tuple[Any, bytes]:
    """What JSON can hold, and the tensors; the values are copies, in the order of their axes.

    Raises `OmniAlignError` where there is more than tensors, numbers and words in lists, tuples
    and dictionaries.
    """
    tensors: dict[str, Tensor] = {}

    def told(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = str(len(tensors))
            tensors[name] = value.detach().clone(memory_format=contiguous_format)
            return {"tensor": name}
        if value is None or type(value) in (bool, int, float, str):
            return value
        if type(value) in (list, tuple):
            return {type(value).__name__: [told(each) for each in value]}
        if isinstance(value, dict):
            found = cast("dict[Any, Any]", value)
            return {"dict": [[told(key), told(each)] for key, each in found.items()]}
        raise OmniAlignError(f"its inputs hold a {type(value).__name__}, which cannot be sent")

    structure = told(inputs)
    return structure, save(tensors)


def unpacked(structure: Any, data: bytes) -> Any:
    """What was packed."""
    tensors = load(data)

    def made(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, held),) = cast("dict[str, Any]", value).items()
        if kind == "tensor":
            return tensors[held]
        if kind == "dict":
            return {made(key): made(each) for key, each in held}
        return (tuple if kind == "tuple" else list)(made(each) for each in held)

    return made(structure)
