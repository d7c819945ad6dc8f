"""Towers that others have trained, and whole models of them."""

from __future__ import annotations

from collections.abc import Mapping

from omnialign import hookimpl

ENCODERS: Mapping[str, Mapping[str, str]] = {
    "audio": {
        "imagebind": "omnialign_pretrained.from_imagebind:ImageBindAudio",
        "languagebind": "omnialign_pretrained.from_languagebind:LanguageBindAudio",
    },
    "image": {
        "imagebind": "omnialign_pretrained.from_imagebind:ImageBindImage",
        "languagebind": "omnialign_pretrained.from_languagebind:LanguageBindImage",
        "open_clip": "omnialign_pretrained.from_open_clip:OpenClipImage",
        "timm": "omnialign_pretrained.from_timm:TimmEncoder",
    },
    "text": {
        "imagebind": "omnialign_pretrained.from_imagebind:ImageBindText",
        "languagebind": "omnialign_pretrained.from_languagebind:LanguageBindText",
        "open_clip": "omnialign_pretrained.from_open_clip:OpenClipText",
    },
    "video": {"languagebind": "omnialign_pretrained.from_languagebind:LanguageBindVideo"},
}
"""By modality, then by name."""

FORMATS: Mapping[str, str] = {
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
