"""Towers that others have trained, and whole models of them."""

from __future__ import annotations

from collections.abc import Mapping

from omnialign import hookimpl

ENCODERS: Mapping[str, Mapping[str, str]] = {
    "audio": {"transformers": "omnialign_pretrained.audio:PretrainedAudio"},
    "image": {"transformers": "omnialign_pretrained.image:PretrainedImage"},
    "protein": {"transformers": "omnialign_pretrained.protein:PretrainedProtein"},
    "text": {"transformers": "omnialign_pretrained.text:PretrainedText"},
    "video": {"transformers": "omnialign_pretrained.video:PretrainedVideo"},
}
"""By modality, then by name."""

FORMATS: Mapping[str, str] = {"hf": "omnialign_pretrained.aligned:read_aligned"}
"""By scheme."""


@hookimpl
def omnialign_encoders() -> Mapping[str, Mapping[str, str]]:
    return ENCODERS


@hookimpl
def omnialign_formats() -> Mapping[str, str]:
    return FORMATS
