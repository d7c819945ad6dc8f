"""What a file's user has to know: inputs, preprocessing, policies, fingerprints, versions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

from omnialign.export.formats import PACKAGES, Format
from omnialign.export.graph import OUTPUT, Input
from omnialign.registry import registry
from omnialign.space import SharedSpace


def describe_export(
    space: SharedSpace, modality: str, inputs: Sequence[Input], format: Format, int8: bool
) -> dict[str, Any]:
    """All that is known before the file is checked; plain values, for JSON."""
    tower = space.tower(modality)
    several = tower.encoder.window is not None and tower.config["long_input"] == "windows"
    return {
        "modality": modality,
        "format": format,
        "precision": "int8" if int8 else "float32",
        **tower.config,
        "window": tower.encoder.window,
        "segments_of_one_item": "mean of their embeddings, brought to length one"
        if several
        else "one",
        "encoder_does": _docstring(tower.encoder),
        "preprocess": tower.stated_preprocess(),
        "preprocess_does": _docstring(tower.encoder.preprocess),
        "collate": _stated(tower.encoder.collate),
        "collate_does": _docstring(tower.encoder.collate),
        "inputs": [{"name": i.name, "dtype": i.dtype, "shape": list(i.shape)} for i in inputs],
        "output": {"name": OUTPUT, "dtype": "float32", "shape": ["n", space.dim]},
        "dim": space.dim,
        "trained_dim": space.trained_dim,
        "model_fingerprint": space.fingerprint(),
        "tower_fingerprint": tower.fingerprint(),
        "versions": {
            "torch": torch.__version__,
            **{package: version(package) for package in PACKAGES[format]},
            **{p.distribution: p.version for p in registry().plugins if p.distribution},
        },
    }


def _stated(collate: Any) -> str:
    """A function by its name, anything else as it prints itself."""
    if isinstance(collate, functools.partial):
        return repr(collate)
    name = getattr(collate, "__qualname__", None)
    return f"{collate.__module__}.{name}" if name else repr(collate)


def _docstring(stated: Any) -> str | None:
    """Of a function, or of an object's class; None where there is none of its own."""
    if isinstance(stated, functools.partial):
        return _docstring(stated.func)
    if inspect.isroutine(stated) or inspect.isclass(stated):
        return inspect.getdoc(stated)
    own = vars(type(stated)).get("__doc__")
    return inspect.cleandoc(own) if own else None
