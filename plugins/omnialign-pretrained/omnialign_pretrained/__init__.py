"""Towers that others have trained, and whole models of them."""

from __future__ import annotations

from collections.abc import Mapping

from omnialign import hookimpl

ENCODERS: Mapping[str, Mapping[str, str]] = {
    "audio": {
        "transformers": "omnialign_pretrained.audio:PretrainedAudio",
        "imagebind": "omnialign_pretrained.from_imagebind:ImageBindAudio",
        "languagebind": "omnialign_pretrained.from_languagebind:LanguageBindAudio",
    },
    "image": {
        "transformers": "omnialign_pretrained.image:PretrainedImage",
        "imagebind": "omnialign_pretrained.from_imagebind:ImageBindImage",
        "languagebind": "omnialign_pretrained.from_languagebind:LanguageBindImage",
        "open_clip": "omnialign_pretrained.from_open_clip:OpenClipImage",
        "timm": "omnialign_pretrained.from_timm:TimmEncoder",
    },
    "text": {
        "transformers": "omnialign_pretrained.text:PretrainedText",
        "imagebind": "omnialign_pretrained.from_imagebind:ImageBindText",
        "languagebind": "omnialign_pretrained.from_languagebind:LanguageBindText",
        "open_clip": "omnialign_pretrained.from_open_clip:OpenClipText",
    },
    "video": {
        "transformers": "omnialign_pretrained.video:PretrainedVideo",
        "languagebind": "omnialign_pretrained.from_languagebind:LanguageBindVideo",
    },
    "protein": {"transformers": "omnialign_pretrained.protein:PretrainedProtein"},
}
"""By modality, then by name."""

FORMATS: Mapping[str, str] = {
    "hf": "omnialign_pretrained.aligned:read_aligned",
    "imagebind": "omnialign_pretrained.from_imagebind:read",
    "languagebind": "omnialign_pretrained.from_languagebind:read",
    "open_clip": "omnialign_pretrained.from_open_clip:read",
}
"""By scheme."""


@hookimpl
def omnialign_encoders() -> Mapping[str, Mapping[str, str]]:
    return ENCODERS


@hookimpl
def omnialign_formats() -> Mapping[str, str]:
    return FORMATS
