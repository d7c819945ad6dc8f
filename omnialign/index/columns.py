"""Rows whose metadata, JSON in one column, are columns of their own: what filters look at."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from omnialign.index.rows import WITHOUT_VECTORS, schema
from omnialign.index.where import ROW_COLUMNS

METADATA = "metadata."
"""Before the name of a column of the metadata."""


def with_metadata(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    """All rows, with a column for each name in the metadata whose values are plain.

    A name that our own columns have is left out; a value that is a list or an object is null.
    """
    parts = [_with_metadata(pa.Table.from_batches([b]).select(WITHOUT_VECTORS)) for b in batches]
    return pa.concat_tables(_alike(parts)) if parts else _empty()


def for_filters(rows: pa.Table) -> pa.Table:
    """The columns that a filter may ask for, by the names that it uses."""
    names = [name for name in rows.column_names if name in ROW_COLUMNS or name.startswith(METADATA)]
    return rows.select(names).rename_columns([name.removeprefix(METADATA) for name in names])


def metadata_types(rows: pa.Table) -> dict[str, str]:
    """The type of each column of the metadata, as `Where` takes it."""
    return {
        field.name.removeprefix(METADATA): _type_name(field.type)
        for field in rows.schema
        if field.name.startswith(METADATA)
    }


def _with_metadata(rows: pa.Table) -> pa.Table:
    tables = [json.loads(text) for text in rows.column("metadata").to_pylist()]
    for name in dict.fromkeys(name for table in tables for name in table):
        values = [_plain(table.get(name)) for table in tables]
        if name not in ROW_COLUMNS and any(value is not None for value in values):
            rows = rows.append_column(METADATA + name, _column(values))
    return rows


def _plain(value: Any) -> str | int | float | bool | None:
    if not isinstance(value, str | int | float | bool):
        return None
    if isinstance(value, int | float):
        try:
            return value if math.isfinite(value) else None
        except OverflowError:
            return None
    return value


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
    return schema(1).empty_table().drop(["vector"])
