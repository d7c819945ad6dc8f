"""A table of rows as a collection of Milvus, which has no transactions.

Every row has a generation: the change that brought it. A journal, one document, says which changes
are whole, and which rows the last of them has replaced. A reader asks for rows of whole changes
that are not replaced, so a change takes place when the journal is written. What is replaced, or was
left by a writer that died, is deleted when the next change begins: who began to read before may
finish meanwhile.

Axes: q queries, n rows, D dim.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pymilvus import DataType

from omnialign.errors import OmniAlignError
from omnialign.index.milvus_connection import MAX_BYTES, MilvusConnection
from omnialign.index.rows import WITHOUT_VECTORS, schema, vectors_of
from omnialign.index.store import Array, Neighbours, Rows
from omnialign.index.where import ROW_COLUMNS

if TYPE_CHECKING:
    from omnialign.index.milvus import MilvusStore
    from omnialign.index.where import Where

T = TypeVar("T")
MAX_HITS = 16_384
"""Of one search in Milvus."""
_VALUES_AT_ONCE = 500
_ROWS_AT_ONCE = 1000
_BYTES_AT_ONCE = 8_000_000
_EXPRESSION_BYTES = 40_000
"""Of a list of paths: the journal, with the list, is one text."""
_ATTEMPTS = 100
_INT64 = 2**63
_TYPES = {str: "string", bool: "boolean", int: "number", float: "number"}
_METADATA_TEXT = "metadata_as_written"
"""The metadata as they are; `metadata` is what filters look at, with plain values and no null."""


@dataclass(frozen=True)
class Journal:
    """The state of a table."""

    generation: int = 0
    """Of the last change that is whole."""
    replaced: str = ""
    """An expression of the rows that are there no longer since then."""
    is_changing: bool = False
    """Whether the next change has begun: rows that are replaced are being deleted."""

    def visible(self, *conditions: str) -> str:
        """An expression of the rows that are there and fit."""
        parts = [f"generation <= {self.generation}", *(f"({part})" for part in conditions if part)]
        if self.replaced:
            parts.append(f"not ({self.replaced})")
        return " and ".join(parts)

    def was_readable_until(self, now: Journal) -> bool:
        """Whether all rows that are visible to this one were still there."""
        changes = now.generation - self.generation
        return changes == 0 or (changes == 1 and not now.is_changing)


class MilvusRows(Rows):
    """A collection of rows; made when it is not there."""

    limit = MAX_HITS

    def __init__(
        self, milvus: MilvusConnection, store: MilvusStore, collection: str, dim: int
    ) -> None:
        self._milvus = milvus
        self._store = store
        self._collection = collection
        self._dim = dim
        self._counted: tuple[Journal, dict[str, int]] | None = None
        if not milvus.open(collection):
            milvus.create(collection, _fields(), dim, lookups=["id", "path", "content"])

    @property
    def version(self) -> str:
        return str(self._journal().generation)

    def _journal(self) -> Journal:
        return Journal(**(self._store.read_note(f"{self._collection}/journal") or {}))

    def _write_journal(self, journal: Journal) -> None:
        self._store.write_note(f"{self._collection}/journal", asdict(journal))

    def _of_one_state(self, read: Callable[[Journal], T]) -> T:
        """What is read of one state of the table."""
        before = self._journal()
        for _ in range(_ATTEMPTS):
            found = read(before)
            after = self._journal()
            if before.was_readable_until(after):
                return found
            before = after
        raise OmniAlignError(
            f"the rows of '{self._store.uri}' changed {_ATTEMPTS} times while they were read; try "
            "again when less is written"
        )

    def count(self) -> int:
        return self._of_one_state(lambda journal: self._count(journal.visible()))

    def _count(self, condition: str) -> int:
        found = self._milvus(
            "query", self._collection, filter=condition, output_fields=["count(*)"]
        )
        return found[0]["count(*)"]

    def replace(self, paths: Sequence[str], rows: pa.Table) -> None:
        self._note_contents(rows)
        if not paths:
            self._change("", rows)
        for some in _in_parts(paths):
            own = rows.filter(pc.field("path").isin(some))
            self._change(_is_one_of("path", some), own)

    def remove(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _VALUES_AT_ONCE):
            self._change(_is_one_of("id", ids[start : start + _VALUES_AT_ONCE]), None)

    def _change(self, former: str, rows: pa.Table | None) -> None:
        """In the place of the rows that fit `former` come `rows`."""
        journal = self._journal()
        if journal.is_changing:
            self._delete(f"generation > {journal.generation}")
        self._write_journal(replace(journal, is_changing=True))
        self._delete(journal.replaced)
        generation = journal.generation + 1
        if rows is not None:
            self._insert(rows, generation)
        replaced = former and f"{former} and generation < {generation}"
        self._write_journal(Journal(generation, replaced))

    def _delete(self, condition: str) -> None:
        if condition:
            self._milvus("delete", self._collection, filter=condition)

    def settle(self) -> None:
        """Deletes what is replaced."""
        if self._journal().replaced:
            self._change("", None)

    def _insert(self, rows: pa.Table, generation: int) -> None:
        step = max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // (4 * self._dim)))
        for start in range(0, rows.num_rows, step):
            part = rows.slice(start, step)
            vectors = vectors_of(part)
            self._milvus(
                "insert",
                self._collection,
                [
                    _inserted(row, vector, generation)
                    for row, vector in zip(part.drop(["vector"]).to_pylist(), vectors, strict=True)
                ],
            )

    def read(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        journal = self._journal()
        for rows in self._read(journal.visible(), columns):
            yield from rows.to_batches()
        if not journal.was_readable_until(self._journal()):
            raise OmniAlignError(
                f"the rows of '{self._store.uri}' changed while they were read; try again"
            )

    def _read(self, condition: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        for batch in self._milvus.read(
            self._collection, condition, _stored(columns), _ROWS_AT_ONCE
        ):
            yield self._table(batch, columns)

    def _table(self, found: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> pa.Table:
        kinds = schema(self._dim)
        arrays = [
            pa.array([row[stored] for row in found], kinds.field(name).type)
            for name, stored in zip(columns, _stored(columns), strict=True)
        ]
        return pa.table(arrays, schema=pa.schema([kinds.field(name) for name in columns]))

    def find(self, column: str, values: Sequence[str], columns: Sequence[str]) -> pa.Table:
        def found(journal: Journal) -> list[pa.Table]:
            return [
                table
                for some in _in_parts(values)
                for table in self._read(journal.visible(_is_one_of(column, some)), columns)
            ]

        return pa.concat_tables([self._table([], columns), *self._of_one_state(found)])

    def nearest(
        self, queries: Array, k: int, modalities: Sequence[str], where: Where | None = None
    ) -> list[dict[str, Neighbours]]:
        if k > MAX_HITS:
            raise OmniAlignError(f"{k} hits were asked for; Milvus gives at most {MAX_HITS}")
        found = self._of_one_state(
            lambda journal: {
                name: self._search(queries, k, journal, name, where) for name in modalities
            }
        )
        return [
            {name: self._neighbours(of_queries[q]) for name, of_queries in found.items()}
            for q in range(len(queries))
        ]

    def _search(
        self, queries: Array, k: int, journal: Journal, modality: str, where: Where | None
    ) -> Sequence[Any]:
        return self._milvus(
            "search",
            self._collection,
            data=list(queries),
            anns_field="vector",
            limit=k,
            filter=journal.visible(
                _is_one_of("modality", [modality]), where.milvus() if where else ""
            ),
            output_fields=_stored(WITHOUT_VECTORS),
            search_params={"metric_type": "IP"},
        )

    def _neighbours(self, found: Sequence[Any]) -> Neighbours:
        rows = self._table([hit["entity"] for hit in found], WITHOUT_VECTORS)
        return Neighbours(rows, np.array([hit["distance"] for hit in found], np.float32))

    def matching(self, where: Where) -> list[str]:
        def found(journal: Journal) -> list[str]:
            tables = self._read(journal.visible(where.milvus()), ["id"])
            return [row_id for table in tables for row_id in table.column("id").to_pylist()]

        return self._of_one_state(found)

    def metadata_columns(self) -> dict[str, str]:
        """What metadata have ever held; a column with several types can be asked for null only."""
        return {name: "/".join(kinds) for name, kinds in self._contents()["columns"].items()}

    def modalities(self) -> dict[str, int]:
        names: list[str] = self._contents()["modalities"]

        def counted(journal: Journal) -> dict[str, int]:
            if self._counted is None or self._counted[0] != journal:
                numbers = {
                    name: self._count(journal.visible(_is_one_of("modality", [name])))
                    for name in names
                }
                self._counted = journal, {name: n for name, n in numbers.items() if n}
            return self._counted[1]

        return self._of_one_state(counted)

    def _contents(self) -> dict[str, Any]:
        note = self._store.read_note(f"{self._collection}/contents")
        return note or {"columns": {}, "modalities": []}

    def _note_contents(self, rows: pa.Table) -> None:
        """Keeps which modalities and columns of metadata there are, before the rows come."""
        known = self._contents()
        columns = {name: set(kinds) for name, kinds in known["columns"].items()}
        for text in rows.column("metadata").to_pylist():
            for name, value in _plain(json.loads(text)).items():
                columns.setdefault(name, set()).add(_TYPES[type(value)])
        modalities = {*known["modalities"], *rows.column("modality").to_pylist()}
        contents = {
            "columns": {name: sorted(kinds) for name, kinds in columns.items()},
            "modalities": sorted(modalities),
        }
        if contents != known:
            self._store.write_note(f"{self._collection}/contents", contents)


def _fields() -> list[dict[str, Any]]:
    text = {"datatype": DataType.VARCHAR, "max_length": MAX_BYTES}
    number = {"datatype": DataType.DOUBLE, "nullable": True}
    return [
        {"field_name": "key", "is_primary": True, **text},
        {"field_name": "generation", "datatype": DataType.INT64},
        *({"field_name": name, **text} for name in ("id", "path", "content", "modality")),
        {"field_name": "signature", "datatype": DataType.INT64},
        {"field_name": "segment", "datatype": DataType.INT32},
        *({"field_name": name, **number} for name in ("start_seconds", "end_seconds")),
        {"field_name": _METADATA_TEXT, **text},
        {"field_name": "metadata", "datatype": DataType.JSON},
    ]


def _inserted(row: Mapping[str, Any], vector: Array, generation: int) -> dict[str, Any]:
    metadata = row["metadata"]
    if len(metadata.encode()) > MAX_BYTES:
        raise OmniAlignError(
            f"the metadata of '{row['path']}' have {len(metadata.encode())} bytes; Milvus keeps at "
            f"most {MAX_BYTES}"
        )
    return {
        **row,
        "key": f"{row['id']}.{generation}",
        "generation": generation,
        _METADATA_TEXT: metadata,
        "metadata": _plain(json.loads(metadata)),
        "vector": vector,
    }


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a filter can ask for: strings, numbers, true and false."""
    return {
        name: float(value) if type(value) is int and abs(value) >= _INT64 else value
        for name, value in metadata.items()
        if name not in ROW_COLUMNS
        and (
            isinstance(value, str) or (isinstance(value, bool | int | float) and _is_finite(value))
        )
    }


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def _stored(columns: Sequence[str]) -> list[str]:
    return [_METADATA_TEXT if name == "metadata" else name for name in columns]


def _is_one_of(column: str, values: Sequence[str]) -> str:
    return f"{column} in [{', '.join(json.dumps(value, ensure_ascii=False) for value in values)}]"


def _in_parts(values: Sequence[str]) -> Iterator[list[str]]:
    """Lists that are short enough to stand in an expression."""
    part: list[str] = []
    size = 0
    for value in values:
        size += 2 * len(value.encode()) + 4
        if part and (size > _EXPRESSION_BYTES or len(part) == _VALUES_AT_ONCE):
            yield part
            part, size = [], 2 * len(value.encode()) + 4
        part.append(value)
    if part:
        yield part
