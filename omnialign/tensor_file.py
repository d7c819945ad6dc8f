"""Safetensors files that are written as a whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor


def write_tensors(
    tensors: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Replaces `file`, whose readers are those of any new file."""
    file.parent.mkdir(exist_ok=True)
    partial, plain = file.with_suffix(".partial"), file.with_suffix(".plain")
    save_file(dict(tensors), partial, dict(metadata) if metadata else None)
    plain.touch()
    shutil.copymode(plain, partial)  # safetensors keeps a file to its owner
    plain.unlink()
    os.replace(partial, file)
