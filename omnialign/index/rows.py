"""Rows of a library: one a segment, and what names them.

Axes: n rows, D dim.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from omnialign.segments import EmbeddedSegment


def schema(dim: int) -> pa.Schema:
    """Of a table of rows. An `id` never comes back with another vector."""
    return pa.schema(
        [
            ("id", pa.string()),
            ("path", pa.string()),
            ("content", pa.string()),
            ("signature", pa.int64()),
            ("modality", pa.string()),
            ("segment", pa.int32()),
            ("start_seconds", pa.float64()),
            ("end_seconds", pa.float64()),
            ("metadata", pa.string()),
            ("vector", pa.list_(pa.float32(), dim)),
        ]
    )


WITHOUT_VECTORS = tuple(schema(1).names[:-1])


@dataclass(frozen=True)
class File:
    """A file as it was found: what its rows say besides the vectors."""

    path: str
    modality: str
    signature: int
    """Of its size and times, its metadata and its modality: equal where nothing has changed."""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    content: str = ""
    """A hash of its bytes; empty before it was needed."""

    @property
    def id(self) -> str:
        """The first half of the ids of its rows."""
        return file_id(self.path, self.content)


def file_id(path: str, content: str) -> str:
    return blake2b(f"{path}\0{content}".encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def file_of(row_id: str) -> str:
    """The file that a row belongs to, as the first half of its id."""
    return row_id.partition("-")[0]


def key_of(text: str) -> int:
    """64 bits that stand for a path or a content."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def rows_of(file: File, segments: Sequence[EmbeddedSegment]) -> list[dict[str, Any]]:
    """The rows of a file that was embedded."""
    return [
        {
            "id": f"{file.id}-{n}",
            "path": file.path,
            "content": file.content,
            "signature": file.signature,
            "modality": file.modality,
            "segment": n,
            "start_seconds": segment.start_seconds,
            "end_seconds": segment.end_seconds,
            "metadata": json.dumps(file.metadata, ensure_ascii=False, sort_keys=True),
            "vector": segment.vector.numpy(),
        }
        for n, segment in enumerate(segments)
    ]


def rows_again(file: File, rows: pa.Table) -> list[dict[str, Any]]:
    """The rows of a file whose content has been embedded before, from those of then."""
    old = sorted(rows.to_pylist(), key=lambda row: row["segment"])
    vectors = iter(vectors_of(rows.sort_by("segment")))
    segments = [
        {
            **row,
            "id": f"{file.id}-{row['segment']}",
            "path": file.path,
            "signature": file.signature,
            "metadata": json.dumps(file.metadata, ensure_ascii=False, sort_keys=True),
            "vector": next(vectors),
        }
        for row in old
    ]
    return segments


def vectors_of(rows: pa.Table | pa.RecordBatch) -> np.ndarray[Any, Any]:
    """The vectors of rows, `(n, D)` float32."""
    column = rows.column("vector")
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1) if len(column) else np.empty((0, 0), np.float32)
