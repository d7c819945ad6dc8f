"""Sets of files that hold rows: which files a path means, and rows that are read when looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Protocol

from omnialign.errors import DataError

RANGE = re.compile(r"(\d+)\.\.(\d+)")


def shard_files(path: str, suffix: str) -> list[Path]:
    """The files that `path` means, in order of their names, each once.

    `path` is a file, a folder of `*suffix` files, or a pattern: `{000000..000009}` and `{a,b}` give
    every name, `*`, `?` and `[…]` those that exist. Raises `DataError` where there is none.
    """
    if Path(path).is_dir():
        found = sorted(Path(path).glob(f"*{suffix}"))
        if not found:
            raise DataError(f"folder {path} has no {suffix} file")
        return found
    if Path(path).is_file():
        return [Path(path)]
    found: list[Path] = []
    for name in _expanded(path):
        matching = sorted(glob(name)) if has_magic(name) else [name]
        if not matching or not Path(matching[0]).is_file():
            raise DataError(f"no {suffix} file at {name}" + (f", of {path}" * (name != path)))
        found += map(Path, matching)
    return list(dict.fromkeys(found))


def _expanded(pattern: str) -> list[str]:
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if not braces:
        return [pattern]
    inside = braces[1].split(",")
    if ends := RANGE.fullmatch(braces[1]):
        first, last = int(ends[1]), int(ends[2])
        inside = [str(i).zfill(len(ends[1])) for i in range(first, last + 1)]
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    return [name for middle in inside for name in _expanded(head + middle + tail)]


def is_filled(value: Any) -> bool:
    """Whether a cell holds something: not null, not an empty string or list."""
    return value is not None and value != "" and value != []


class Cells(Protocol):
    """What a `LazyRow` looks into."""

    @property
    def columns(self) -> Sequence[str]: ...

    def has(self, index: int, column: str) -> bool:
        """Whether a row has something in a column; cheap."""
        ...

    def value(self, index: int, column: str) -> Any:
        """What is in a cell that is filled."""
        ...


class LazyRow(Mapping[str, Any]):
    """One row; a value is read each time that it is looked at, and not before."""

    def __init__(self, cells: Cells, index: int) -> None:
        self._cells = cells
        self._index = index

    def __contains__(self, column: object) -> bool:
        return isinstance(column, str) and self._cells.has(self._index, column)

    def __getitem__(self, column: str) -> Any:
        if column not in self:
            raise KeyError(column)
        return self._cells.value(self._index, column)

    def __iter__(self) -> Iterator[str]:
        return (column for column in self._cells.columns if column in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)
