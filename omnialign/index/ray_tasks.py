"""What the nodes of a cluster do with files: read them, embed them, write their rows.

A row says what came of a file only once: its last segment says how many there are. So rows may come
in any order, and who collects them sees whether a file has all of its own.

Axes: n rows, D dim.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from omnialign.data.pipeline import Pipeline
from omnialign.index.adding import Contents, identified, unseen
from omnialign.index.fragments import write
from omnialign.index.model import LibraryModel, ModelRecord
from omnialign.index.ray_session import node_name
from omnialign.index.reading import End, pickled, read_file
from omnialign.index.rows import File, file_id, schema
from omnialign.index.store import Array
from omnialign.segments import evaluating
from omnialign.tower import prefix

_BYTES_AT_ONCE = 32 * 2**20
"""Of inputs that a reader holds."""
FILES = pa.schema(
    [
        ("number", pa.int64()),
        ("path", pa.string()),
        ("modality", pa.string()),
        ("signature", pa.int64()),
        ("metadata", pa.string()),
    ]
)
_ABOUT = [
    ("number", pa.int64()),
    ("content", pa.string()),
    ("num_segments", pa.int32()),
    ("problem", pa.string()),
]
ENDS = pa.schema([*_ABOUT, ("written", pa.string())])
"""What is told of files; `written` alone in its row: fragments, numbers of files, rows of each."""


@dataclass(frozen=True)
class Job:
    """What all tasks know."""

    pipelines: Mapping[str, Pipeline]
    contents: Contents
    dim: int
    uri: str
    storage_version: str


@lru_cache(maxsize=1)
def _fetched(job: Any) -> Job:
    import ray

    return ray.get(job)


def _inputs_schema(dim: int) -> pa.Schema:
    plain = [f for f in schema(dim) if f.name not in ("vector", "content")]
    return pa.schema([*_ABOUT, *plain, ("input", pa.large_binary())])


def read(files: pa.Table, job: Any) -> Iterator[pa.Table]:
    """Inputs of files, and the end of each; a task of Ray's."""
    told = _fetched(job)
    kind = _inputs_schema(told.dim)
    rows: list[dict[str, Any]] = []
    held = 0
    for row in files.to_pylist():
        for found in _read_one(row, told):
            rows.append(found)
            held += len(found.get("input", b""))
            if held >= _BYTES_AT_ONCE:
                yield pa.Table.from_pylist(rows, schema=kind)
                rows, held = [], 0
    yield pa.Table.from_pylist(rows, schema=kind)


def _read_one(row: dict[str, Any], job: Job) -> Iterator[dict[str, Any]]:
    try:
        file = identified(File(row["path"], row["modality"], row["signature"]))
    except OSError as error:
        hint = (
            f" on node {node_name()} of the cluster; files must lie where every node reaches them "
            "under the same path"
        )
        yield {**row, "problem": unseen(row["path"], error) + hint}
        return
    row = {**row, "content": file.content}
    if file.content in job.contents:
        yield {**row, "num_segments": 0}
        return
    waiting: dict[str, Any] | None = None
    for n, told in enumerate(read_file(job.pipelines[file.modality], Path(file.path))):
        if isinstance(told, End):
            if told.problem is not None or waiting is None:
                yield {**row, "problem": told.problem or "it holds nothing to embed"}
            else:
                yield {**waiting, "num_segments": n}
            return
        if waiting is not None:
            yield waiting
        waiting = {
            **row,
            "id": f"{file_id(file.path, file.content)}-{n}",
            "segment": n,
            "start_seconds": told.start_seconds,
            "end_seconds": told.end_seconds,
            "input": pickled(told.sample),
        }


class Encoder:
    """Holds the model; an actor of Ray's. Its `(n,)` inputs become vectors `(n, D)`."""

    def __init__(self, record: ModelRecord, source: str) -> None:
        self._space = LibraryModel(record, source).space()
        self._bf16 = record.bf16

    def __call__(self, inputs: pa.Table) -> pa.Table:
        vectors = np.zeros((len(inputs), self._space.dim), np.float32)
        is_there = np.asarray(inputs.column("input").is_valid())
        modalities = np.asarray(inputs.column("modality"))
        for name in np.unique(modalities[is_there]):
            places = np.flatnonzero(is_there & (modalities == name))
            tower = self._space.tower(name)
            samples = [pickle.loads(inputs.column("input")[i].as_buffer()) for i in places.tolist()]
            device = self._space.device.type
            with evaluating(tower), torch.autocast(device, torch.bfloat16, enabled=self._bf16):
                found = tower(tower.pipeline.collate(samples))
            vectors[places] = prefix(found, self._space.dim).float().cpu().numpy()
        is_sound = np.isfinite(vectors).all(1)
        problems = inputs.column("problem").to_pylist()
        for i in np.flatnonzero(~is_sound).tolist():
            problems[i] = "its embedding has values that are not finite"
        place = inputs.schema.get_field_index("problem")
        return (
            inputs.set_column(place, "problem", pa.array(problems, pa.string()))
            .drop(["input"])
            .append_column("vector", _column(vectors, is_there & is_sound))
        )


def _column(vectors: Array, is_there: Array) -> pa.Array:
    flat = pa.array(np.where(is_there[:, None], vectors, 0).ravel(), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1], mask=pa.array(~is_there))


def write_rows(embedded: pa.Table, job: Any) -> pa.Table:
    """Writes the rows among what was embedded, and gives the ends; a task of Ray's."""
    told = _fetched(job)
    rows = embedded.filter(embedded.column("vector").is_valid())
    is_end = [
        count is not None or problem is not None
        for count, problem in zip(
            embedded.column("num_segments").to_pylist(),
            embedded.column("problem").to_pylist(),
            strict=True,
        )
    ]
    ends = embedded.filter(pa.array(is_end, pa.bool_()))
    ends = ends.select([name for name, _ in _ABOUT])
    ends = ends.append_column("written", pa.nulls(len(ends), pa.string())).cast(ENDS)
    if not len(rows):
        return ends
    numbers, counts = np.unique(rows.column("number"), return_counts=True)
    kind = schema(told.dim)
    fragments = write(told.uri, told.storage_version, rows.select(kind.names).cast(kind))
    written = json.dumps([fragments, numbers.tolist(), counts.tolist()])
    return pa.concat_tables([ends, pa.Table.from_pylist([{"written": written}], schema=ENDS)])
