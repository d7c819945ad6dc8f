"""A table of rows as it was at one version, on the local disk, in the form that is scanned.

The folder holds the files of a `Scan`, to which new rows are appended, and `rows-VERSION.arrow`:
every row without its vector, with its place in the scan, and its metadata as columns. It is a copy:
where it is missing or damaged it is made again.

Axes: q queries, n rows, D dim, P places of the scan, some of rows that are gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from filelock import FileLock

from omnialign.data.features import cache_folder
from omnialign.errors import OmniAlignError
from omnialign.index.approximate import FILE as GRAPH
from omnialign.index.approximate import Approximate
from omnialign.index.rows import WITHOUT_VECTORS, vectors_of
from omnialign.index.scan import Scan
from omnialign.index.store import Array, Neighbours

if TYPE_CHECKING:
    from omnialign.index.where import Where

_KEEP = 0.7
"""Of the scan's rows, at least so many are alive; below, it is written anew."""
_FEW = 0.1
"""Of all rows: fewer than that are fetched one by one."""
_ROWS_AT_ONCE = 4096
_FOLLOWED = "followed.json"
_ASKED = 200
"""Rows whose neighbours say how much a graph finds."""
METADATA = "metadata."
"""Before the name of a column of the metadata."""


def snapshot_folder(uri: str, table: str, is_local: bool) -> Path:
    """In the library; of one elsewhere or that is only read, in the cache of this machine."""
    if is_local and os.access(uri, os.W_OK):
        return Path(uri) / "snapshots" / table
    name = hashlib.sha256(f"{uri}/{table}".encode()).hexdigest()[:32]
    return cache_folder() / "snapshots" / name


class Snapshot:
    """Follows a table: each `follow` brings it to the table's latest version."""

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder = folder
        self._dim = dim
        self._version: int | None = None
        self._stamp: str | None = None
        self._rows: pa.Table = pa.table({})
        self._places: Array = np.empty(0, np.int64)
        self._scan: Scan
        self._graph: Approximate | None = None
        self._masks: dict[str, Array | None] = {}

    @staticmethod
    def discard(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    def follow(self, stamp: str | None, opened: Callable[[], Any]) -> None:
        """Does nothing where the version is the one that it has.

        Args:
            stamp: what every change of the table changes, if that is known; where it is the one of
                the last time, the table is not opened.
            opened: the table.
        """
        if stamp is not None and (stamp == self._stamp or self._read_if(stamp)):
            return
        table = opened()
        table.checkout_latest()
        if table.version != self._version:
            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / ".lock"):
                version = table.version
                if not self._read(version):
                    self._catch_up(table)
                    assert self._read(version)
        self._stamp = stamp
        with suppress(OSError):
            about = json.dumps({"stamp": stamp, "version": table.version})
            (self._folder / _FOLLOWED).write_text(about, "utf-8")

    def _read_if(self, stamp: str) -> bool:
        """Whether the last that was followed had this stamp, and is read again."""
        try:
            about = json.loads((self._folder / _FOLLOWED).read_text("utf-8"))
            is_it = about["stamp"] == stamp and self._read(about["version"])
        except (OSError, ValueError, KeyError):
            return False
        if is_it:
            self._stamp = stamp
        return is_it

    def _file(self, version: int) -> Path:
        return self._folder / f"rows-{version}.arrow"

    def _read(self, version: int) -> bool:
        file = self._file(version)
        if not file.is_file():
            return False
        try:
            with pa.memory_map(str(file)) as mapped:
                rows = pa.ipc.open_file(mapped).read_all()
        except (OSError, pa.ArrowInvalid):
            file.unlink()
            return False
        places = _numbers(rows.column("place"), np.int64)
        scan = self._open_scan()
        if scan is None or len(scan) <= (int(places[-1]) if len(places) else -1):
            self.discard(self._folder)
            self._folder.mkdir(parents=True)
            return False
        self._version, self._rows, self._places, self._scan = version, rows, places, scan
        self._graph = self._open_graph()
        self._masks = {}
        return True

    def _open_scan(self) -> Scan | None:
        """None where its files are damaged."""
        try:
            scan = Scan.open(self._folder, self._dim)
            device = _device(scan.vectors().nbytes // 2)
            return scan if device is None else Scan.open(self._folder, self._dim, device)
        except OmniAlignError:
            return None

    def _open_graph(self) -> Approximate | None:
        """None where none was built, or it is damaged: then everything is scanned."""
        try:
            return Approximate.open(self._folder, self._scan)
        except OmniAlignError:
            return None

    def build_graph(self, k: int, progress: Callable[[int], None] | None) -> float:
        """Builds or extends the graph; the share of `k` neighbours of rows that it finds."""
        with FileLock(self._folder / ".lock"):
            if self._graph is None:
                self._graph = Approximate.build(self._folder, self._scan, progress)
            else:
                self._graph.extend(progress)
            self._graph = Approximate.open(self._folder, self._scan)
        chosen = self._places[:: max(1, len(self._places) // _ASKED)]
        queries = np.array(self._scan.vectors()[chosen])
        exact, found = (
            [set(own) - {place} for own, place in zip(one.places.tolist(), chosen, strict=True)]
            for one in (
                self._scan.search(queries, k + 1)[0],
                self._graph.search(queries, k + 1),
            )
        )
        wanted = sum(len(own) for own in exact)
        hits = sum(len(own & other) for own, other in zip(exact, found, strict=True))
        return hits / wanted if wanted else 1.0

    def _catch_up(self, table: Any) -> None:
        """Appends the vectors of rows that are new, and writes the rows of the table's version."""
        columns = [*WITHOUT_VECTORS, "_rowid"]
        batches = list(table.search().select(columns).to_batches(_ROWS_AT_ONCE))
        ids = [row_id for batch in batches for row_id in batch.column("id").to_pylist()]
        place_of, used = self._known()
        if sum(row_id in place_of for row_id in ids) < _KEEP * used:
            place_of, used = {}, 0
        if not used:
            (self._folder / GRAPH).unlink(missing_ok=True)
        scan = Scan.open(self._folder, self._dim)
        scan.truncate(used)
        for batch in self._fresh(table, batches, place_of):
            fresh = np.array([row_id not in place_of for row_id in batch.column("id").to_pylist()])
            added = batch.filter(pa.array(fresh))
            scan.append(vectors_of(added))
            for row_id in added.column("id").to_pylist():
                place_of[row_id] = used
                used += 1
        self._write(table.version, batches, np.array([place_of[i] for i in ids], np.int64), used)

    def _fresh(
        self, table: Any, batches: Sequence[pa.RecordBatch], known: Mapping[str, int]
    ) -> Iterator[pa.Table | pa.RecordBatch]:
        """Rows with vectors, all that are not known among them: these alone, if they are few."""
        fresh = [
            row_id
            for batch in batches
            for name, row_id in zip(
                batch.column("id").to_pylist(), batch.column("_rowid").to_pylist(), strict=True
            )
            if name not in known
        ]
        if len(fresh) > _FEW * sum(batch.num_rows for batch in batches):
            yield from table.search().select(["id", "vector"]).to_batches(_ROWS_AT_ONCE)
            return
        for start in range(0, len(fresh), _ROWS_AT_ONCE):
            some = fresh[start : start + _ROWS_AT_ONCE]
            yield table.take_row_ids(some).select(["id", "vector"]).to_arrow()

    def _known(self) -> tuple[dict[str, int], int]:
        """The places of the rows of the last version that was written, and how many it had."""
        files = sorted(self._folder.glob("rows-*.arrow"), key=lambda f: int(f.stem[5:]))
        for file in reversed(files):
            if self._read(int(file.stem[5:])):
                ids = self._rows.column("id").to_pylist()
                used = int((self._rows.schema.metadata or {})[b"places"])
                return dict(zip(ids, self._places.tolist(), strict=True)), used
        return {}, 0

    def _write(
        self, version: int, batches: Sequence[pa.RecordBatch], places: Array, used: int
    ) -> None:
        parts = [pa.Table.from_batches([batch]).drop(["_rowid"]) for batch in batches]
        parts = [_with_metadata(part) for part in parts]
        rows = pa.concat_tables(_alike(parts)) if parts else _empty()
        order = np.argsort(places, kind="stable")
        rows = rows.append_column("place", pa.array(places)).take(order)
        rows = rows.set_column(
            rows.schema.get_field_index("modality"),
            "modality",
            rows.column("modality").dictionary_encode(),
        )
        rows = rows.replace_schema_metadata({"places": str(used)})
        partial = self._folder / "rows.partial"
        with pa.ipc.new_file(str(partial), rows.schema) as writer:
            writer.write_table(rows.combine_chunks())
        partial.replace(self._file(version))
        for old in self._folder.glob("rows-*.arrow"):
            if old != self._file(version):
                old.unlink()

    def metadata_columns(self) -> dict[str, str]:
        return {
            field.name.removeprefix(METADATA): _type_name(field.type)
            for field in self._rows.schema
            if field.name.startswith(METADATA)
        }

    def matching(self, where: Where) -> list[str]:
        return self._rows.filter(pa.array(where.mask(self._plain()))).column("id").to_pylist()

    def modalities(self) -> dict[str, int]:
        counted = self._rows.column("modality").cast(pa.string()).value_counts()
        return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}

    def nearest(
        self, queries: Array, k: int, modalities: Sequence[str], where: Where | None
    ) -> list[dict[str, Neighbours]]:
        masks = [self._mask(name, where) for name in modalities]
        if self._graph is None:
            found = self._scan.search(queries, k, masks)
        else:
            found = [self._graph.search(queries, k, mask) for mask in masks]
        return [
            {
                name: self._neighbours(cosines[q], places[q])
                for name, (cosines, places) in zip(modalities, found, strict=True)
            }
            for q in range(len(queries))
        ]

    def _neighbours(self, cosines: Array, places: Array) -> Neighbours:
        there = places >= 0
        found = np.searchsorted(self._places, places[there])
        taken = pa.Array.from_buffers(pa.int64(), len(found), [None, pa.py_buffer(found)])
        rows = self._rows.take(taken)
        return Neighbours(rows.select([*WITHOUT_VECTORS]), cosines[there])

    def _mask(self, modality: str, where: Where | None) -> Array | None:
        """Which places are searched; None for all."""
        if modality not in self._masks:
            self._masks[modality] = self._at_places(self._are(modality))
        mask = self._masks[modality]
        if where is None:
            return mask
        allowed = self._at_places(where.mask(self._plain()))
        if mask is None:
            return allowed
        return mask if allowed is None else mask & allowed

    def _are(self, modality: str) -> Array:
        """Which rows are of a modality."""
        column = self._rows.column("modality")
        if not column.num_chunks:
            return np.empty(0, bool)
        names: list[str] = column.chunk(0).dictionary.to_pylist()
        codes = _numbers(pa.chunked_array([column.chunk(0).indices]), np.int32)
        return codes == (names.index(modality) if modality in names else -1)

    def _plain(self) -> pa.Table:
        """The rows with the names of columns that a filter uses."""
        names = [name.removeprefix(METADATA) for name in self._rows.column_names]
        return self._rows.rename_columns(names)

    def _at_places(self, of_rows: Array) -> Array | None:
        if of_rows.all() and len(of_rows) == len(self._scan):
            return None
        mask = np.zeros(len(self._scan), dtype=bool)
        mask[self._places[of_rows]] = True
        return mask


def _numbers(column: pa.ChunkedArray, kind: type[Any]) -> Array:
    """A column of one chunk without nulls; pyarrow's own way would import pandas, for a second."""
    if not column.num_chunks:
        return np.empty(0, kind)
    assert column.num_chunks == 1, column.num_chunks
    chunk = column.chunk(0)
    found = np.frombuffer(chunk.buffers()[1], kind)
    return found[chunk.offset : chunk.offset + len(chunk)]


def _device(num_bytes: int) -> str | None:
    """A GPU, where there is one with room to spare."""
    import torch

    if not torch.cuda.is_available() or num_bytes > torch.cuda.mem_get_info()[0] / 2:
        return None
    return "cuda"


def _with_metadata(rows: pa.Table) -> pa.Table:
    """With a column for each plain value that the metadata holds."""
    tables = [json.loads(text) for text in rows.column("metadata").to_pylist()]
    names = dict.fromkeys(name for table in tables for name in table)
    for name in names:
        values = [table.get(name) for table in tables]
        if name not in rows.column_names and all(
            value is None or isinstance(value, str | int | float | bool) for value in values
        ):
            rows = rows.append_column(METADATA + name, _column(values))
    return rows


def _column(values: Sequence[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool}:
        return pa.array(values, pa.bool_() if kinds else pa.null())
    if kinds <= {int, float}:
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    return pa.array([None if v is None else _text(v) for v in values], pa.string())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _alike(parts: Sequence[pa.Table]) -> list[pa.Table]:
    """With the same columns; one that has several types is of strings."""
    kinds: dict[str, set[pa.DataType]] = {}
    for part in parts:
        for field in part.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    chosen = {name: _common(own) for name, own in kinds.items()}
    wanted = pa.schema(list(chosen.items()))
    return [
        pa.table(
            [
                part.column(name).cast(kind)
                if name in part.column_names
                else pa.nulls(part.num_rows, kind)
                for name, kind in chosen.items()
            ],
            schema=wanted,
        )
        for part in parts
    ]


def _common(kinds: set[pa.DataType]) -> pa.DataType:
    stated = kinds - {pa.null()}
    return next(iter(stated)) if len(stated) == 1 else pa.string()


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "boolean"
    return "number" if pa.types.is_floating(kind) else "string"


def _empty() -> pa.Table:
    from omnialign.index.rows import schema

    return schema(1).empty_table().drop(["vector"])
