"""Libraries in LanceDB: a folder, or the URI of an object storage.

Axes: q queries, n rows, D dim.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from filelock import FileLock, Timeout

from omnialign.errors import OmniAlignError
from omnialign.index.rows import schema
from omnialign.index.snapshot import Snapshot, snapshot_folder
from omnialign.index.store import Array, Neighbours, Rows, Store, missing

if TYPE_CHECKING:
    from omnialign.index.where import Where

_DOCUMENTS = pa.schema([("key", pa.string()), ("body", pa.string())])
_VALUES_AT_ONCE = 1000
KEEP_OLD_VERSIONS = timedelta(hours=1)
"""Who reads an old version meanwhile can finish."""


class LanceStore(Store):
    """A LanceDB database, one a library; each change of a table is a version of it.

    LanceDB takes longer to import than a search takes. Of a library in a folder, a change shows in
    the names of its tables' versions; as long as these are the same, copies of the documents and
    of the rows answer, and LanceDB is not needed.
    """

    def __init__(self, uri: str) -> None:
        self.is_local = "://" not in uri
        self.uri = os.path.abspath(uri) if self.is_local else uri
        self._held: tuple[str | None, dict[str, str]] = (None, {})

    @cached_property
    def _database(self) -> Any:
        lancedb = _lancedb()
        try:
            return lancedb.connect(self.uri)
        except (OSError, RuntimeError, ValueError) as error:
            raise OmniAlignError(f"no library can be kept at '{self.uri}': {error}") from None

    def exists(self) -> bool:
        if self.is_local:
            return (Path(self.uri) / "documents.lance").is_dir()
        return "documents" in self._names()

    def _names(self) -> list[str]:
        try:
            return list(self._database.list_tables().tables)
        except (OSError, RuntimeError, ValueError) as error:
            raise OmniAlignError(f"the library at '{self.uri}' cannot be read: {error}") from None

    def _documents(self) -> Any:
        if self.exists():
            return self._database.open_table("documents")
        return self._database.create_table("documents", schema=_DOCUMENTS)

    def documents(self, prefix: str = "") -> dict[str, str]:
        if not self.exists():
            return {}
        found = self._copied_documents()
        return {key: body for key, body in found.items() if key.startswith(prefix)}

    def _copied_documents(self) -> dict[str, str]:
        stamp = self._stamp("documents")
        if stamp is not None and stamp == self._held[0]:
            return self._held[1]
        file = snapshot_folder(self.uri, "documents", self.is_local) / "documents.json"
        with suppress(OSError, ValueError, KeyError):
            kept = json.loads(file.read_text("utf-8"))
            if stamp is not None and kept["stamp"] == stamp:
                self._held = stamp, kept["documents"]
                return kept["documents"]
        rows = self._documents().search().limit(None).to_arrow().to_pylist()
        found = {row["key"]: row["body"] for row in rows}
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            fresh = file.with_name(f"{uuid.uuid4().hex}.partial")
            fresh.write_text(json.dumps({"stamp": stamp, "documents": found}), "utf-8")
            fresh.replace(file)
        return found

    def _stamp(self, table: str) -> str | None:
        """What every change of a table changes; None where it cannot be seen from outside."""
        if not self.is_local:
            return None
        try:
            with os.scandir(Path(self.uri) / f"{table}.lance" / "_versions") as found:
                versions = sorted((file.name, file.stat().st_mtime_ns) for file in found)
        except OSError:
            return None
        return hashlib.sha256(repr(versions).encode()).hexdigest()

    def write_documents(self, documents: Mapping[str, str]) -> None:
        if documents:
            columns = {"key": list(documents), "body": list(documents.values())}
            rows = pa.table(columns, schema=_DOCUMENTS)
            merge = self._documents().merge_insert("key").when_matched_update_all()
            merge.when_not_matched_insert_all().execute(rows)

    def remove_documents(self, keys: Sequence[str]) -> None:
        if keys:
            self._documents().delete(is_one_of("key", keys))

    def rows(self, name: str, dim: int) -> LanceRows:
        folder = snapshot_folder(self.uri, name, self.is_local)
        return LanceRows(partial(self._open, name, dim), partial(self._stamp, name), folder, dim)

    def _open(self, name: str, dim: int) -> Any:
        if name in self._names():
            return self._database.open_table(name)
        return self._database.create_table(name, schema=schema(dim), exist_ok=True)

    def drop(self, name: str) -> None:
        if name in self._names():
            self._database.drop_table(name)
        Snapshot.discard(snapshot_folder(self.uri, name, self.is_local))

    @contextmanager
    def lock(self) -> Generator[None]:
        if not self.is_local:
            yield
            return
        try:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
            with FileLock(Path(self.uri) / ".lock", timeout=0):
                yield
        except Timeout:
            raise OmniAlignError(
                f"another process is writing to '{self.uri}'; wait until it has finished"
            ) from None
        except PermissionError:
            raise OmniAlignError(
                f"'{self.uri}' cannot be written; choose another place, or change its permissions"
            ) from None


class LanceRows(Rows):
    """A Lance table; searched by a scan over a snapshot of it on the local disk."""

    def __init__(
        self, table: Callable[[], Any], stamp: Callable[[], str | None], folder: Path, dim: int
    ) -> None:
        self._open = table
        self._stamp = stamp
        self._dim = dim
        self._snapshot = Snapshot(folder, dim)

    @cached_property
    def _table(self) -> Any:
        return self._open()

    @property
    def version(self) -> str:
        self._table.checkout_latest()
        return str(self._table.version)

    def count(self) -> int:
        self._table.checkout_latest()
        return self._table.count_rows()

    def replace(self, paths: Sequence[str], rows: pa.Table) -> None:
        if not self._may_hold(paths):
            self._table.add(rows)
            return
        merge = self._table.merge_insert("id").when_matched_update_all()
        merge = merge.when_not_matched_insert_all()
        merge.when_not_matched_by_source_delete(is_one_of("path", paths)).execute(rows)

    def _may_hold(self, paths: Sequence[str]) -> bool:
        return bool(paths) and self._table.count_rows(is_one_of("path", paths)) > 0

    def remove(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _VALUES_AT_ONCE):
            self._table.delete(is_one_of("id", ids[start : start + _VALUES_AT_ONCE]))

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        self._table.checkout_latest()
        yield from self._table.search().select(list(columns)).to_batches(4096)

    def find(self, column: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
        self._table.checkout_latest()
        parts = [
            self._table.search()
            .where(is_one_of(column, values[start : start + _VALUES_AT_ONCE]))
            .select(list(columns))
            .limit(None)
            .to_arrow()
            for start in range(0, len(values), _VALUES_AT_ONCE)
        ]
        kind = schema(self._dim)
        empty = pa.schema([kind.field(name) for name in columns]).empty_table()
        return pa.concat_tables(parts or [empty]).select(list(columns))

    def nearest(
        self, queries: Array, k: int, modalities: Sequence[str], where: Where | None = None
    ) -> list[dict[str, Neighbours]]:
        return self._current().nearest(queries, k, modalities, where)

    def matching(self, where: Where) -> list[str]:
        return self._current().matching(where)

    def build_graph(self, k: int, progress: Callable[[int], None] | None = None) -> float:
        return self._current().build_graph(k, progress)

    def metadata_columns(self) -> dict[str, str]:
        return self._current().metadata_columns()

    def modalities(self) -> dict[str, int]:
        return self._current().modalities()

    def _current(self) -> Snapshot:
        self._snapshot.follow(self._stamp(), self._open)
        return self._snapshot

    def dataset(self) -> Any:
        """The latest version, as pylance's `LanceDataset`."""
        self._table.checkout_latest()
        return self._table.to_lance()

    def settle(self) -> None:
        self._table.optimize(cleanup_older_than=KEEP_OLD_VERSIONS)
        self._current()


def _lancedb() -> Any:
    try:
        import lancedb
    except ModuleNotFoundError as error:
        raise missing(error, "index") from None
    return lancedb


def is_one_of(column: str, values: Sequence[str]) -> str:
    quoted = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({quoted})"
