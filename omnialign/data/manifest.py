"""Rows from a manifest file, or from a folder with one in the Hugging Face convention."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnialign.contract import Source
from omnialign.data.parquet import ParquetRows
from omnialign.data.shards import LazyRow, is_filled, shard_files
from omnialign.errors import DataError

FOLDER_MANIFESTS = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


class Manifest(Source):
    """A JSONL, CSV or Parquet file with a row an item, or a folder with `metadata.jsonl`.

    Of Parquet also several: a folder of `.parquet` files, or a pattern of names. A column holds
    paths relative to the manifest, the data itself for modalities whose strings are data, or in
    Parquet bytes. A list in a column is several items that describe the row: several captions.
    """

    def __init__(self, path: str) -> None:
        """Raises `DataError` that names the file, the row and the fault."""
        files = _manifest_files(path)
        self.root = files[0].parent
        self._cells = ParquetRows(files) if files[0].suffix.lower() == ".parquet" else None
        self._rows = _read_rows(files[0]) if self._cells is None else []
        if not len(self):
            raise DataError(f"{files[0]} has no rows")
        self._columns = list(dict.fromkeys(key for row in self._rows for key in row))

    @property
    def columns(self) -> Sequence[str]:
        return self._columns if self._cells is None else self._cells.columns

    def __len__(self) -> int:
        return len(self._rows if self._cells is None else self._cells)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if self._cells is None:
            return self._rows[index]
        return LazyRow(self._cells, range(len(self))[index])


def _manifest_files(path: str) -> list[Path]:
    """One file, or several of Parquet."""
    if Path(path).is_file():
        return [Path(path)]
    if not Path(path).is_dir():
        if path.endswith(".parquet"):
            return shard_files(path, ".parquet")
        raise DataError(f"no manifest or folder at {path}")
    for name in FOLDER_MANIFESTS:
        if (Path(path) / name).is_file():
            return [Path(path) / name]
    if any(Path(path).glob("*.parquet")):
        return shard_files(path, ".parquet")
    content = "is empty" if not any(Path(path).iterdir()) else "has no manifest"
    raise DataError(f"folder {path} {content}; it wants one of {', '.join(FOLDER_MANIFESTS)}")


def _read_rows(path: Path) -> list[Mapping[str, Any]]:
    read = {".jsonl": _read_jsonl, ".csv": _read_csv}
    suffix = path.suffix.lower()
    if suffix not in read:
        raise DataError(f"{path}: a manifest ends in .jsonl, .csv or .parquet, not '{suffix}'")
    try:
        rows = read[suffix](path)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    return [{column: cell for column, cell in row.items() if is_filled(cell)} for row in rows]


def _read_jsonl(path: Path) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not valid JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(
                    f"{path}, line {number}: wants an object, found {type(row).__name__}"
                )
            rows.append(row)
    return rows


def _read_csv(path: Path) -> list[Mapping[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        rows: list[Mapping[str, Any]] = []
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise DataError(
                        f"{path}, line {reader.line_num}: wants {len(reader.fieldnames or [])} "
                        "cells, as the header has"
                    )
                rows.append(row)
        except csv.Error as error:
            line = reader.reader.line_num
            raise DataError(f"{path}, line {line}: not valid CSV: {error}") from None
    return rows
