"""The source `webdataset`: tar shards, with random access by an index of their members.

The convention is WebDataset's (Aizman et al. 2019, https://arxiv.org/abs/2001.01858): members that
share their name up to the first dot are one row.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omnialign.contract import Blob, Source
from omnialign.data.shards import LazyRow, is_filled, shard_files
from omnialign.data.tar_members import Member, members
from omnialign.errors import DataError, ReadError

FIELDS = ""
"""Stands for the column of a member `KEY.json` with an object, whose keys are the columns."""


class WebDataset(Source):
    """Tar files in the WebDataset convention: `path` is one, a folder of them, or a pattern.

    Of `000012.png` the column is `png`; of `000012.left.png` it is `left`. `.txt` is a string,
    `.cls` a whole number where it is one, `.json` any value; of `000012.json` the keys of the
    object are columns. Everything else is bytes. Names without an extension, hidden ones and empty
    files are passed over. Headers and `.json` are read once, at construction; nothing is written.
    """

    def __init__(self, path: str) -> None:
        """Raises `DataError` that names the tar and the member."""
        self._shards = shard_files(path, ".tar")
        self._keys: list[str] = []
        self._shard, self._first = array("q"), array("q", [0])  # of each row
        self._kind, self._offset, self._size = array("q"), array("q"), array("q")  # of each member
        self._kinds: dict[tuple[str, str], int] = {}  # column and format
        columns: dict[str, None] = {}
        for number, shard in enumerate(self._shards):
            for key, row in _rows(shard).items():
                self._add_row(shard, row, columns)
                self._keys.append(key)
                self._shard.append(number)
                self._first.append(len(self._offset))
        if not self._keys:
            raise DataError(f"{path}: no member is called KEY.EXTENSION, so there are no rows")
        self._columns = list(columns)
        self._names = list(self._kinds)
        self._last: tuple[int, Mapping[str, Any]] = (-1, {})

    def _add_row(
        self, shard: Path, row: dict[str, tuple[str, Member]], columns: dict[str, None]
    ) -> None:
        for column, (kind, member) in row.items():
            if kind == "json":
                value = _parsed(_blob(shard, member.name, member.offset, member.size))
                if column == "json" and isinstance(value, dict):
                    column = FIELDS
                    columns.update((name, None) for name, cell in value.items() if is_filled(cell))
            if column != FIELDS:
                columns[column] = None
            self._kind.append(self._kinds.setdefault((column, kind), len(self._kinds)))
            self._offset.append(member.offset)
            self._size.append(member.size)

    @property
    def columns(self) -> Sequence[str]:
        return self._columns

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return LazyRow(self, range(len(self))[index])

    def has(self, index: int, column: str) -> bool:
        return self._place(index, column) is not None or column in self._fields(index)

    def value(self, index: int, column: str) -> Any:
        place = self._place(index, column)
        return self._fields(index)[column] if place is None else self._content(index, place)

    def _place(self, index: int, column: str) -> int | None:
        """Of the member that is a row's `column`."""
        places = range(self._first[index], self._first[index + 1])
        return next((p for p in places if self._names[self._kind[p]][0] == column), None)

    def _fields(self, index: int) -> Mapping[str, Any]:
        """The plain columns of a row; those of the last row are kept."""
        if self._last[0] != index:
            place = self._place(index, FIELDS)
            fields = {} if place is None else self._content(index, place)
            self._last = index, {key: cell for key, cell in fields.items() if is_filled(cell)}
        return self._last[1]

    def _content(self, index: int, place: int) -> Any:
        column, kind = self._names[self._kind[place]]
        name = ".".join(dict.fromkeys(part for part in (self._keys[index], column, kind) if part))
        shard = self._shards[self._shard[index]]
        blob = _blob(shard, name, self._offset[place], self._size[place])
        if kind == "json":
            return _parsed(blob)
        return _text(blob, kind) if kind in ("txt", "cls") else blob


def _rows(shard: Path) -> dict[str, dict[str, tuple[str, Member]]]:
    """By key, then by column: the format of a member, and the member."""
    rows: dict[str, dict[str, tuple[str, Member]]] = {}
    for member in members(shard):
        folder, slash, name = member.name.rpartition("/")
        key, _, extension = name.partition(".")
        column, _, kind = extension.rpartition(".")
        if not (key and kind and member.size):
            continue
        row = rows.setdefault(folder + slash + key, {})
        kind = kind.lower()
        if (column or kind) in row:
            raise DataError(
                f"{shard}: member '{member.name}' is the second of its row for column "
                f"'{column or kind}'"
            )
        row[column or kind] = kind, member
    return rows


def _blob(shard: Path, name: str, offset: int, size: int) -> Blob:
    name = f"{shard}: {name}"
    return Blob(name, partial(_read, shard, name, offset, size))


def _read(shard: Path, name: str, offset: int, size: int) -> bytes:
    try:
        with shard.open("rb", buffering=0) as file:
            file.seek(offset)
            data = file.read(size)
    except OSError as error:
        raise ReadError(name, f"{error.strerror}") from None
    if len(data) != size:
        raise ReadError(name, f"the tar ends after {len(data)} of its {size} bytes")
    return data


def _parsed(blob: Blob) -> Any:
    try:
        return json.loads(blob.read())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{blob}: not valid JSON: {error}") from None


def _text(blob: Blob, kind: str) -> str | int | Blob:
    """What is no UTF-8 stays bytes, which a modality refuses, so that training sets it aside."""
    try:
        text = blob.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        return blob
    digits = kind == "cls" and text.strip().removeprefix("-").isdecimal()
    return int(text) if digits else text
