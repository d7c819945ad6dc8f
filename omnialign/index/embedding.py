"""Embeds files, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from omnialign.errors import OmniAlignError
from omnialign.segments import EmbeddedSegment
from omnialign.space import SharedSpace


@dataclass(frozen=True)
class EmbeddedFile:
    """What became of a file: its segments, or why it cannot be read."""

    key: Any
    segments: list[EmbeddedSegment] | None
    problem: str | None


def embed_files(
    space: SharedSpace,
    files: Iterable[tuple[Any, str, str]],
    *,
    workers: int = 0,
    batch_size: int = 64,
) -> Iterator[EmbeddedFile]:
    from pathlib import Path

    for key, path, modality in files:
        try:
            segments = space.embed_segments(Path(path), modality, batch_size=batch_size)
        except OmniAlignError as error:
            yield EmbeddedFile(key, None, str(error))
        else:
            yield EmbeddedFile(key, segments, None)
