"""Towers that others have trained, and whole models of them."""

from __future__ import annotations

from collections.abc import Mapping

from omnialign import hookimpl

ENCODERS: Mapping[str, Mapping[str, str]] = {}
"""By modality, then by name."""

FORMATS: Mapping[str, str] = {}
"""By scheme."""


@hookimpl
def omnialign_encoders() -> Mapping[str, Mapping[str, str]]:
    return ENCODERS


@hookimpl
def omnialign_formats() -> Mapping[str, str]:
    return FORMATS
