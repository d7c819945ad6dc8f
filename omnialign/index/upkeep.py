"""Checks and tidies a library: duplicates, verification, export.

Axes: n rows, m files, D dim.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from omnialign.data.features import content_key
from omnialign.errors import OmniAlignError, ReadError
from omnialign.index.rows import WITHOUT_VECTORS, file_of, schema, vectors_of
from omnialign.index.store import Array
from omnialign.registry import registry

if TYPE_CHECKING:
    from omnialign.index.index import Index

_BLOCK = 4096


@dataclass(frozen=True)
class Duplicates:
    """Files that are the same, byte for byte (`exact`), or nearly so to the model (`near`)."""

    kind: Literal["exact", "near"]
    modality: str
    paths: list[str]
    cosine: float
    """The least with which a file is near to another of them."""


def duplicates(index: Index, threshold: float) -> list[Duplicates]:
    """Groups of files of one modality, those of most files first.

    A file stands for the mean of its segments; two are near where the cosine between them is
    `threshold` or more. Of the files of one content one is compared with the others.
    """
    if not 0 < threshold <= 1:
        raise OmniAlignError(f"threshold is {threshold}; it is a cosine above 0, at most 1")
    files = _Files(index)
    groups = [
        Duplicates("exact", files.modalities[own[0]], [files.paths[i] for i in own], 1.0)
        for own in files.of_content.values()
        if len(own) > 1
    ]
    firsts = [own[0] for own in files.of_content.values()]
    for modality in sorted(set(files.modalities)):
        places = [i for i in firsts if files.modalities[i] == modality]
        for group, cosine in _near(files.vectors(places), threshold):
            paths = [files.paths[places[i]] for i in group]
            groups.append(Duplicates("near", modality, paths, cosine))
    return sorted(groups, key=lambda group: (-len(group.paths), group.paths[0]))


class _Files:
    """The files of a library, with the sum of the vectors of each."""

    def __init__(self, index: Index) -> None:
        self.paths: list[str] = []
        self.modalities: list[str] = []
        self.of_content: dict[str, list[int]] = {}
        self._sums = np.zeros((len(index), index.dim), np.float32)
        places: dict[str, int] = {}
        for batch in index.rows.read(["id", "path", "content", "modality", "vector"]):
            owners: list[int] = []
            for row in batch.drop_columns(["vector"]).to_pylist():
                file = file_of(row["id"])
                if file not in places:
                    places[file] = len(self.paths)
                    self.paths.append(row["path"])
                    self.modalities.append(row["modality"])
                    self.of_content.setdefault(row["content"], []).append(places[file])
                owners.append(places[file])
            np.add.at(self._sums, owners, vectors_of(batch))

    def vectors(self, places: Sequence[int]) -> Tensor:
        return torch.nn.functional.normalize(torch.from_numpy(self._sums[places]), dim=1)


def _near(vectors: Tensor, threshold: float) -> list[tuple[list[int], float]]:
    """Groups of places that are linked by cosines of at least `threshold`, with the least."""
    parent = np.arange(len(vectors))
    least = np.ones(len(vectors), np.float32)
    for start in range(0, len(vectors), _BLOCK):
        for other in range(start, len(vectors), _BLOCK):
            cosines = vectors[start : start + _BLOCK] @ vectors[other : other + _BLOCK].T
            near = (cosines >= threshold).triu(1 if other == start else -_BLOCK)
            lowest = cosines.masked_fill_(~near, 1).amin(1).numpy()
            own = slice(start, start + len(lowest))
            least[own] = np.minimum(least[own], lowest)
            for i in near.any(1).nonzero().flatten().tolist():
                linked = near[i].numpy().nonzero()[0] + other
                roots = np.unique(_roots(parent, np.append(linked, start + i)))
                parent[roots] = roots[0]
    groups: dict[int, list[int]] = {}
    for i, root in enumerate(_roots(parent, np.arange(len(vectors))).tolist()):
        groups.setdefault(root, []).append(i)
    return [(own, float(least[own].min())) for own in groups.values() if len(own) > 1]


def _roots(parent: Array, places: Array) -> Array:
    """What stands for the group of each of `places`; shortens the ways there."""
    found = parent[places]
    while not np.array_equal(above := parent[found], found):
        found = above
    parent[places] = found
    return found


@dataclass(frozen=True)
class Verified:
    """What `Index.verify` looked at, and what it found wrong."""

    rows: int
    files: int
    embedded_again: int
    problems: list[str]


def verify(index: Index, sample: int) -> Verified:
    """Ids are unique, vectors of length one, files there and as they were embedded.

    `sample` files, spread over all, are embedded again and compared with their vectors.
    """
    problems: list[str] = []
    seen: set[str] = set()
    files: dict[str, tuple[str, str]] = {}
    rows = 0
    for batch in index.rows.read(["id", "path", "content", "modality", "vector"]):
        lengths = np.linalg.norm(vectors_of(batch), axis=1)
        for row, length in zip(
            batch.drop_columns(["vector"]).to_pylist(), lengths.tolist(), strict=True
        ):
            rows += 1
            if row["id"] in seen:
                problems.append(f"{row['path']}: the row {row['id']} is there twice")
            seen.add(row["id"])
            if not abs(length - 1) < 1e-3:
                problems.append(f"{row['path']}: the vector of {row['id']} has length {length:.4f}")
            files[row["path"]] = (row["modality"], row["content"])
    whole: list[str] = []
    for path, (modality, content) in files.items():
        problem = _changed(path, modality, content)
        if problem is None:
            whole.append(path)
        else:
            problems.append(problem)
    again = whole[:: max(1, len(whole) // sample)][:sample] if sample else []
    problems += [problem for path in again if (problem := _differs(index, path, files[path][0]))]
    return Verified(rows, len(files), len(again), problems)


def _changed(path: str, modality: str, content: str) -> str | None:
    try:
        key = content_key(registry().modality(modality), Path(path))
    except OSError as error:
        return f"{path}: {error.strerror}; add its folder again with prune"
    assert key is not None
    is_same = content == f"{modality}:{key.hex()}"
    return None if is_same else f"{path}: has changed since it was embedded; add it again"


def _differs(index: Index, path: str, modality: str) -> str | None:
    found = index.rows.find("path", [path], ["segment", "vector"]).sort_by("segment")
    try:
        now = index.space.embed_segments(Path(path), modality)
    except ReadError as error:
        return f"{path}: {error}"
    vectors = vectors_of(found)
    if len(now) != len(vectors):
        return f"{path}: has {len(now)} segments now, {len(vectors)} in the library"
    cosine = min(float(own.vector.numpy() @ kept) for own, kept in zip(now, vectors, strict=True))
    return None if cosine > 0.999 else f"{path}: embedded again, its cosine is {cosine:.4f}"


def export(index: Index, file: Path) -> int:
    """Writes all rows with their vectors as Parquet; gives their number."""
    names = [*WITHOUT_VECTORS, "vector"]
    partial = file.with_name(file.name + ".partial")
    kind = schema(index.dim).with_metadata(
        {"omnialign": json.dumps({"model": index.model.record.as_dict()})}
    )
    rows = 0
    try:
        with pq.ParquetWriter(partial, kind) as writer:
            for batch in index.rows.read(names):
                writer.write_table(pa.Table.from_batches([batch]).select(names).cast(kind))
                rows += batch.num_rows
        os.replace(partial, file)
    except OSError as error:
        raise OmniAlignError(f"cannot write {file}: {error}") from None
    return rows
