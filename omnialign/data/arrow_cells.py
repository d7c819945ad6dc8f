"""Cells of Arrow tables, of which bytes are read when they are looked at.

A file is a column of bytes, or the struct `{bytes, path}` of Hugging Face `datasets`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from omnialign.contract import Blob
from omnialign.data.shards import is_filled


class ArrowCells:
    """Columns by name, each an Arrow array of all rows; see `omnialign.data.shards.Cells`."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = columns

    @property
    def columns(self) -> Sequence[str]:
        return list(self._columns)

    def scalar(self, index: int, column: str) -> Any:
        """The cell in Arrow's form."""
        return self._columns[column][index]

    def place(self, index: int) -> str:
        """Where a row lies, for people."""
        return f"row {index}"

    def has(self, index: int, column: str) -> bool:
        return column in self._columns and _is_filled(self.scalar(index, column))

    def value(self, index: int, column: str) -> Any:
        """A plain value, a `Blob`, or a list of them."""
        cell = self.scalar(index, column).as_py()
        if not isinstance(cell, list):
            return self._wrapped(cell, index, column)
        return [self._wrapped(entry, index, column, place) for place, entry in enumerate(cell)]

    def _wrapped(self, entry: Any, index: int, column: str, *place: int) -> Any:
        content = _content(entry)
        if not isinstance(content, bytes):
            return content
        name = (entry["path"] if isinstance(entry, dict) else None) or column
        name = " ".join([f"{self.place(index)}, {name}", *map(str, place)])
        return Blob(name, partial(self._bytes, index, column, *place))

    def _bytes(self, index: int, column: str, *place: int) -> bytes:
        cell = self.scalar(index, column).as_py()
        return _content(cell[place[0]] if place else cell)


def holds_bytes(kind: Any) -> bool:
    """Whether cells of an Arrow type are bytes, or hold some."""
    from pyarrow import types

    if types.is_nested(kind) and not types.is_map(kind):
        return any(holds_bytes(kind.field(i).type) for i in range(kind.num_fields))
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _is_filled(scalar: Any) -> bool:
    """As `is_filled`, without a copy of the bytes."""
    from pyarrow import types

    if not scalar.is_valid or not holds_bytes(scalar.type):
        return is_filled(scalar.as_py())
    if types.is_struct(scalar.type) and _is_file(scalar.keys()):
        return scalar["bytes"].is_valid or scalar["path"].is_valid
    return not isinstance(scalar, Sequence) or len(scalar) > 0


def _is_file(names: Any) -> bool:
    return sorted(names) == ["bytes", "path"]


def _content(entry: Any) -> Any:
    """What a cell holds: of a `{bytes, path}` struct the bytes, or else the path."""
    if isinstance(entry, dict) and _is_file(entry):
        return entry["path"] if entry["bytes"] is None else entry["bytes"]
    return entry
