"""OmniAlign: one embedding space for any kind of data and language.

import omnialign as oa
space = oa.load("runs/any-to-text")
space.embed(["dog.wav", "a dog barks"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omnialign.building import build_encoder
    from omnialign.contract import (
        AlignedModel,
        AlignedTower,
        Augmentation,
        Blob,
        Claim,
        Modality,
        Preview,
        Segment,
        Source,
        Unread,
        hookimpl,
    )
    from omnialign.encoder import Encoder, pad_and_stack
    from omnialign.errors import ModelError, OmniAlignError, ReadError
    from omnialign.index import Index
    from omnialign.model_folder import load
    from omnialign.segments import EmbeddedSegment
    from omnialign.space import SharedSpace
    from omnialign.weights import interpolate

__version__ = "0.1.0"

_HOME = {
    "AlignedModel": "contract",
    "AlignedTower": "contract",
    "Augmentation": "contract",
    "Blob": "contract",
    "Claim": "contract",
    "Modality": "contract",
    "Preview": "contract",
    "Segment": "contract",
    "Source": "contract",
    "Unread": "contract",
    "hookimpl": "contract",
    "Encoder": "encoder",
    "pad_and_stack": "encoder",
    "ModelError": "errors",
    "OmniAlignError": "errors",
    "ReadError": "errors",
    "Index": "index",
    "EmbeddedSegment": "segments",
    "SharedSpace": "space",
    "build_encoder": "building",
    "interpolate": "weights",
    "load": "model_folder",
}
"""Public names by the module they live in; imported when first used, because torch is heavy."""

__all__ = [
    "AlignedModel",
    "AlignedTower",
    "Augmentation",
    "Blob",
    "Claim",
    "EmbeddedSegment",
    "Encoder",
    "Index",
    "Modality",
    "ModelError",
    "OmniAlignError",
    "Preview",
    "ReadError",
    "Segment",
    "SharedSpace",
    "Source",
    "Unread",
    "build_encoder",
    "hookimpl",
    "interpolate",
    "load",
    "pad_and_stack",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'omnialign' has no attribute '{name}'")
    return getattr(import_module(f"omnialign.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
