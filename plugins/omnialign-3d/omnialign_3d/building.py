"""Placeholder of `omnialign.build_encoder`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omnialign import Encoder
from omnialign.registry import registry


def build_encoder(
    modality: str, name: str, options: Mapping[str, Any], folder: Path | None = None
) -> Encoder:
    checked = registry().encoder_options(modality, name, options)
    kind = registry().encoder(modality, name)
    return kind(**checked) if folder is None else kind.from_files(folder, **checked)
