"""Rows from a manifest file, or from a folder with one in the Hugging Face convention."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omnialign.contract import Source
from omnialign.errors import DataError

FOLDER_MANIFESTS = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


class Manifest(Source):
    """A JSONL, CSV or Parquet file with a row an item, or a folder with `metadata.jsonl`.

    A column holds paths relative to the manifest, or the data itself for modalities whose strings
    are data. A list in a column is several items that describe the row: several captions.
    """

    def __init__(self, path: str) -> None:
        """Raises `DataError` that names the file, the row and the fault."""
        self._path = _manifest_file(Path(path))
        self.root = self._path.parent
        read = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
        suffix = self._path.suffix.lower()
        if suffix not in read:
            raise DataError(
                f"{self._path}: a manifest ends in .jsonl, .csv or .parquet, not '{suffix}'"
            )
        try:
            self._rows = [_filled(row) for row in read[suffix](self._path)]
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self._path}: cannot be read: {error}") from None
        if not self._rows:
            raise DataError(f"{self._path} has no rows")
        self._columns = list(dict.fromkeys(key for row in self._rows for key in row))

    @property
    def columns(self) -> Sequence[str]:
        return self._columns

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._rows[index]


def _filled(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {column: value for column, value in row.items() if value not in (None, "", [])}


def _manifest_file(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(f"no manifest or folder at {path}")
    for name in FOLDER_MANIFESTS:
        if (path / name).is_file():
            return path / name
    content = "is empty" if not any(path.iterdir()) else "has no manifest"
    raise DataError(f"folder {path} {content}; it wants one of {', '.join(FOLDER_MANIFESTS)}")


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


def _read_parquet(path: Path) -> list[Mapping[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not valid Parquet: {error}") from None
