"""Rows of Parquet files, with random access to columns of bytes by row group."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from omnialign.data.arrow_cells import ArrowCells, holds_bytes
from omnialign.errors import DataError, ReadError

MAX_CACHE_BYTES = 64 * 2**20
"""Of row groups with bytes, besides the last that was read."""


class ParquetRows(ArrowCells):
    """The cells of some Parquet files with equal columns, one file after the other.

    Columns without bytes are held in memory, in Arrow's form; of the others a few row groups.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises `DataError` that names the file."""
        import pyarrow

        self._files = list(files)
        opened = [_opened(file) for file in files]
        schema = opened[0].schema_arrow
        for file, other in zip(files, opened, strict=True):
            if not other.schema_arrow.equals(schema):
                raise DataError(f"{file} has other columns or types than {files[0]}")
        self._stored = {field.name for field in schema if holds_bytes(field.type)}
        plain = [name for name in schema.names if name not in self._stored]
        tables = [_read(f, o.read, columns=plain) for f, o in zip(files, opened, strict=True)]
        table = pyarrow.concat_tables(tables)
        super().__init__({name: table[name] if name in plain else None for name in schema.names})
        self._groups = [
            (file, other, number)
            for file, other in zip(files, opened, strict=True)
            for number in range(other.num_row_groups)
        ]
        self._starts = list(
            accumulate((o.metadata.row_group(n).num_rows for _, o, n in self._groups), initial=0)
        )
        self._full = {
            (group, column)
            for group, (_, other, number) in enumerate(self._groups)
            for column in _without_nulls(other.metadata.row_group(number))
        }
        self._cache: OrderedDict[tuple[int, str], Any] = OrderedDict()
        self._cached_bytes = 0

    def __reduce__(self) -> Any:
        return ParquetRows, (self._files,)

    def __len__(self) -> int:
        return self._starts[-1]

    def has(self, index: int, column: str) -> bool:
        known = column in self._stored and (self._group(index), column) in self._full
        return known or super().has(index, column)

    def place(self, index: int) -> str:
        return f"{self._groups[self._group(index)][0]}: row {index}"

    def scalar(self, index: int, column: str) -> Any:
        if column not in self._stored:
            return super().scalar(index, column)
        group = self._group(index)
        key = group, column
        if key not in self._cache:
            file, opened, number = self._groups[group]
            self._cache[key] = _read(file, opened.read_row_group, number, columns=[column])[column]
            self._cached_bytes += self._cache[key].nbytes
            while self._cached_bytes > MAX_CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return self._cache[key][index - self._starts[group]]

    def _group(self, index: int) -> int:
        return bisect_right(self._starts, index) - 1


def _opened(file: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file, memory_map=True)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file}: not valid Parquet: {error}") from None


def _read(file: Path, read: Any, *group: int, columns: Sequence[str]) -> Any:
    """Without Arrow's threads, which a forked loader worker does not have."""
    import pyarrow

    try:
        return read(*group, columns=columns, use_threads=False)
    except (pyarrow.ArrowException, OSError) as error:
        where = f"{file}, row group {group[0]}" if group else file
        raise ReadError(where, f"not valid Parquet: {error}") from None


def _without_nulls(group: Any) -> list[str]:
    """Columns of bytes or files that every row of a row group has, as its statistics say."""
    columns = [group.column(number) for number in range(group.num_columns)]
    return [
        column.path_in_schema.removesuffix(".bytes")
        for column in columns
        if column.is_stats_set
        and column.statistics.has_null_count
        and column.statistics.null_count == 0
    ]
