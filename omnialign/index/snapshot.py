"""A table of rows as it was at one version, on the local disk, in the form that is scanned.

A folder holds that of a `Scan`, to which new rows are appended, and `rows-VERSION.arrow`: every row
without its vector, with its place in the scan, and its metadata as columns. It is a copy: where it
is missing or damaged it is made again, in a new folder for the scan, so that who is reading the old
one can finish.

Axes: q queries, n rows, D dim, P places of the scan, some of rows that are gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from filelock import FileLock

from omnialign.data.features import cache_folder
from omnialign.errors import OmniAlignError
from omnialign.index.approximate import Approximate
from omnialign.index.columns import for_filters, metadata_types, with_metadata
from omnialign.index.rows import WITHOUT_VECTORS, vectors_of
from omnialign.index.scan import Scan
from omnialign.index.store import Array, Neighbours

if TYPE_CHECKING:
    from omnialign.index.where import Where

_FORMAT = "1"
_KEEP = 0.7
"""Of the scan's rows, at least so many are alive; below, it is written anew."""
_FEW = 0.1
"""Of all rows: fewer than that are fetched one by one."""
_ROWS_AT_ONCE = 4096
_FOLLOWED = "followed.json"
_ASKED = 200
"""Rows whose neighbours say how much a graph finds."""


def snapshot_folder(uri: str, table: str, is_local: bool) -> Path:
    """In the library; of one elsewhere or that is only read, in the cache of this machine."""
    if is_local and os.access(uri, os.W_OK):
        return Path(uri) / "snapshots" / table
    name = hashlib.sha256(f"{uri}/{table}".encode()).hexdigest()[:32]
    return cache_folder() / "snapshots" / name


@dataclass(frozen=True)
class _State:
    """One version, whole: replaced, never changed."""

    version: int
    rows: pa.Table
    places: Array
    """Of each row in the scan `(n,)`, rising."""
    used: int
    """Places of the scan that are taken, also by rows that are gone."""
    folder: Path
    """Of the scan."""
    scan: Scan
    graph: Approximate | None
    masks: dict[str, Array | None] = field(default_factory=dict[str, "Array | None"])

    def mask(self, modality: str, where: Where | None) -> Array | None:
        """Which places are searched `(P,)`; None for all."""
        if where is not None:
            return self._at_places(self._are(modality) & where.mask(for_filters(self.rows)))
        if modality not in self.masks:
            self.masks[modality] = self._at_places(self._are(modality))
        return self.masks[modality]

    def _are(self, modality: str) -> Array:
        """Which rows are of a modality."""
        column = self.rows.column("modality")
        if not column.num_chunks:
            return np.empty(0, bool)
        names: list[str] = column.chunk(0).dictionary.to_pylist()
        codes = _numbers(pa.chunked_array([column.chunk(0).indices]), np.int32)
        return codes == (names.index(modality) if modality in names else -1)

    def _at_places(self, of_rows: Array) -> Array | None:
        if of_rows.all() and len(of_rows) == len(self.scan):
            return None
        mask = np.zeros(len(self.scan), dtype=bool)
        mask[self.places[of_rows]] = True
        return mask

    def neighbours(self, cosines: Array, places: Array) -> Neighbours:
        there = places >= 0
        found = np.searchsorted(self.places, places[there])
        taken = pa.Array.from_buffers(pa.int64(), len(found), [None, pa.py_buffer(found)])
        return Neighbours(self.rows.take(taken).select([*WITHOUT_VECTORS]), cosines[there])


class Snapshot:
    """Follows a table: each `follow` brings it to the table's latest version. Threads may share it.

    Args:
        folder: where the copy lies.
        dim: of the vectors.
    """

    def __init__(self, folder: Path, dim: int) -> None:
        self._folder = folder
        self._dim = dim
        self._lock = Lock()
        self._stamp: str | None = None
        self._state: _State | None = None

    @staticmethod
    def discard(folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)

    @property
    def _current(self) -> _State:
        assert self._state is not None
        return self._state

    def follow(self, stamp: str | None, opened: Callable[[], Any]) -> None:
        """Does nothing where the version is the one that it has.

        Args:
            stamp: what every change of the table changes, if that is known; where it is the one of
                the last time, the table is not opened.
            opened: gives the table, opened for this alone.
        """
        with self._lock:
            if stamp is not None and (stamp == self._stamp or self._read_if(stamp)):
                return
            table = opened()
            version = table.version
            if self._state is None or self._state.version != version:
                self._folder.mkdir(parents=True, exist_ok=True)
                with FileLock(self._folder / ".lock"):
                    self._state = self._read(version) or self._caught_up(table)
            self._stamp = stamp
            with suppress(OSError):
                about = json.dumps({"stamp": stamp, "version": version})
                (self._folder / _FOLLOWED).write_text(about, "utf-8")

    def _read_if(self, stamp: str) -> bool:
        """Whether the last that was followed had this stamp, and is read again."""
        try:
            about = json.loads((self._folder / _FOLLOWED).read_text("utf-8"))
            state = self._read(about["version"]) if about["stamp"] == stamp else None
        except (OSError, ValueError, KeyError):
            return False
        if state is not None:
            self._stamp, self._state = stamp, state
        return state is not None

    def _file(self, version: int) -> Path:
        return self._folder / f"rows-{version}.arrow"

    def _read(self, version: int) -> _State | None:
        """None where that version is not there, or not whole."""
        try:
            with pa.memory_map(str(self._file(version))) as mapped:
                rows = pa.ipc.open_file(mapped).read_all()
            about = rows.schema.metadata or {}
            if about.get(b"format", b"").decode() != _FORMAT:
                return None
            places = _numbers(rows.column("place"), np.int64)
            used, folder = int(about[b"used"]), self._folder / about[b"scan"].decode()
            scan = self._open_scan(folder)
        except (OSError, pa.ArrowInvalid, KeyError, OmniAlignError):
            return None
        if len(scan) < used:
            return None
        return _State(version, rows, places, used, folder, scan, _graph(folder, scan))

    def _open_scan(self, folder: Path) -> Scan:
        if not folder.is_dir():
            raise OmniAlignError(f"'{folder}' is missing")
        scan = Scan.open(folder, self._dim)
        device = _device(scan.vectors().nbytes // 2)
        return scan if device is None else Scan.open(folder, self._dim, device)

    def _caught_up(self, table: Any) -> _State:
        """Appends the vectors of rows that are new, and writes the rows of the table's version."""
        columns = [*WITHOUT_VECTORS, "_rowid"]
        batches = list(table.search().select(columns).to_batches(_ROWS_AT_ONCE))
        ids = [row_id for batch in batches for row_id in batch.column("id").to_pylist()]
        former = self._latest()
        place_of: dict[str, int] = {}
        used, folder = 0, self._folder / f"scan-{uuid.uuid4().hex[:8]}"
        if former is not None:
            known = former.rows.column("id").to_pylist()
            place_of = dict(zip(known, former.places.tolist(), strict=True))
            used, folder = former.used, former.folder
            if sum(row_id in place_of for row_id in ids) < _KEEP * used:
                place_of, used, folder = {}, 0, self._folder / f"scan-{uuid.uuid4().hex[:8]}"
        folder.mkdir(exist_ok=True)
        scan = Scan.open(folder, self._dim)
        scan.truncate(used)
        for batch in _fresh(table, batches, place_of):
            fresh = np.array([row_id not in place_of for row_id in batch.column("id").to_pylist()])
            added = batch.filter(pa.array(fresh))
            scan.append(vectors_of(added))
            for row_id in added.column("id").to_pylist():
                place_of[row_id] = used
                used += 1
        places = np.array([place_of[row_id] for row_id in ids], np.int64)
        self._write(table.version, with_metadata(batches), places, used, folder)
        state = self._read(table.version)
        assert state is not None
        return state

    def _latest(self) -> _State | None:
        """The last version that was written."""
        files = sorted(self._folder.glob("rows-*.arrow"), key=lambda f: int(f.stem[5:]))
        found = (self._read(int(file.stem[5:])) for file in reversed(files))
        return next((state for state in found if state is not None), None)

    def _write(self, version: int, rows: pa.Table, places: Array, used: int, folder: Path) -> None:
        rows = rows.append_column("place", pa.array(places)).take(np.argsort(places))
        place = rows.schema.get_field_index("modality")
        rows = rows.set_column(place, "modality", rows.column("modality").dictionary_encode())
        about = {"format": _FORMAT, "used": str(used), "scan": folder.name}
        rows = rows.replace_schema_metadata(about)
        partial = self._folder / "rows.partial"
        with pa.ipc.new_file(str(partial), rows.schema) as writer:
            writer.write_table(rows.combine_chunks())
        partial.replace(self._file(version))
        for old in self._folder.glob("rows-*.arrow"):
            if old != self._file(version):
                old.unlink()
        for old in self._folder.glob("scan-*"):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)

    def build_graph(self, k: int, progress: Callable[[int], None] | None) -> float:
        """Builds or extends the graph; the share of `k` neighbours of rows that it finds."""
        with self._lock, FileLock(self._folder / ".lock"):
            state = self._current
            if state.graph is None:
                Approximate.build(state.folder, state.scan, progress)
            else:
                state.graph.extend(progress)
            self._state = state = self._read(state.version) or state
        assert state.graph is not None
        chosen = state.places[:: max(1, len(state.places) // _ASKED)]
        queries = np.array(state.scan.vectors()[chosen])
        exact, found = (
            [set(own) - {place} for own, place in zip(one.places.tolist(), chosen, strict=True)]
            for one in (
                state.scan.search(queries, k + 1)[0],
                state.graph.search(queries, k + 1),
            )
        )
        wanted = sum(len(own) for own in exact)
        hits = sum(len(own & other) for own, other in zip(exact, found, strict=True))
        return hits / wanted if wanted else 1.0

    def metadata_columns(self) -> dict[str, str]:
        return metadata_types(self._current.rows)

    def matching(self, where: Where) -> list[str]:
        rows = self._current.rows
        return rows.filter(pa.array(where.mask(for_filters(rows)))).column("id").to_pylist()

    def modalities(self) -> dict[str, int]:
        counted = self._current.rows.column("modality").cast(pa.string()).value_counts()
        return {entry["values"]: entry["counts"] for entry in counted.to_pylist()}

    def nearest(
        self, queries: Array, k: int, modalities: Sequence[str], where: Where | None
    ) -> list[dict[str, Neighbours]]:
        state = self._current
        masks = [state.mask(name, where) for name in modalities]
        if state.graph is None:
            found = state.scan.search(queries, k, masks)
        else:
            found = [state.graph.search(queries, k, mask) for mask in masks]
        return [
            {
                name: state.neighbours(cosines[q], places[q])
                for name, (cosines, places) in zip(modalities, found, strict=True)
            }
            for q in range(len(queries))
        ]


def _fresh(
    table: Any, batches: Sequence[pa.RecordBatch], known: Mapping[str, int]
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


def _graph(folder: Path, scan: Scan) -> Approximate | None:
    """None where none was built, or it is damaged: then everything is scanned."""
    try:
        return Approximate.open(folder, scan)
    except OmniAlignError:
        return None


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
