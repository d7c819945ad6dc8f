"""Packs rows, and the files that they name, into shards.

All is written into a folder beside the output, which then takes its place, so that a packing that
was killed leaves nothing under the final name and can be run again.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from omnialign.contract import Blob, Source
from omnialign.data.rows import DEFAULT_COLUMN
from omnialign.data.shard_writers import File, PackedRow, ParquetWriter, TarWriter
from omnialign.errors import DataError, ReadError
from omnialign.registry import registry

Format = Literal["tar", "parquet"]
Progress = Callable[[int, int], None]

MAX_NAMED = 10
"""Files that an error names."""


@dataclass(frozen=True)
class Packed:
    """What was written, and the files of rows that were left out, with the reasons."""

    shards: list[Path]
    num_rows: int
    num_bytes: int
    left_out: dict[str, str]


def pack(
    source: Source,
    output: str | Path,
    *,
    format: Format = "tar",
    shard_mib: int = 256,
    skip_unreadable: bool = False,
    progress: Progress | None = None,
) -> Packed:
    """Writes the rows of a source, in order, with the bytes of the files that they name.

    A string is a file where its column is `file_name` or bears the name of a modality whose
    strings are paths, and where it has a modality's suffix and there is such a file.

    Args:
        source: the rows.
        output: a folder that does not exist.
        format: tar in the WebDataset convention, or Parquet with `{bytes, path}`.
        shard_mib: a shard ends before its files are larger, unless a single row's are.
        skip_unreadable: leave rows out whose files cannot be read, rather than fail.
        progress: called with rows done and of all.

    Raises:
        DataError: `output` exists, files cannot be read, or a value has no place in the format.
    """
    output = Path(output)
    if output.exists():
        raise DataError(f"{output} exists; pack into another folder, or delete it")
    rows = _Rows(source)
    left_out = rows.unreadable()
    if left_out and not skip_unreadable:
        named = "; ".join(f"{name}: {reason}" for name, reason in [*left_out.items()][:MAX_NAMED])
        rest = f"; and {len(left_out) - MAX_NAMED} more" if len(left_out) > MAX_NAMED else ""
        raise DataError(
            f"{len(left_out)} files cannot be read: {named}{rest}. Mend them, or leave their rows "
            "out (--skip-unreadable)"
        )
    schema = None
    if format == "parquet":
        schema = ParquetWriter.schema(source.columns, rows.plain(), rows.file_columns)
    partial = output.absolute().with_name(f".{output.absolute().name}.partial")
    try:
        with _fresh_folder(partial):
            writer = (
                TarWriter(partial, shard_mib * 2**20)
                if schema is None
                else ParquetWriter(partial, shard_mib * 2**20, schema)
            )
            num_rows = num_bytes = 0
            with closing(writer):
                for done, row in enumerate(rows.read(left_out if skip_unreadable else None), 1):
                    if row:
                        writer.add(row)
                        num_rows += 1
                        num_bytes += row.num_bytes
                    if progress:
                        progress(done, len(source))
            if not num_rows:
                raise DataError("no row can be packed: none has files that can be read")
            partial.rename(output)
    except OSError as error:
        raise DataError(f"cannot write {error.filename or partial}: {error.strerror}") from None
    return Packed([output / shard.name for shard in writer.shards], num_rows, num_bytes, left_out)


@contextmanager
def _fresh_folder(folder: Path) -> Generator[None]:
    """An empty folder, which goes again where something fails; a killed process leaves it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _Rows:
    """The rows of a source, taken apart into plain values and files."""

    def __init__(self, source: Source) -> None:
        self._source = source
        modalities = registry().modalities.values()
        self._suffixes = {suffix for modality in modalities for suffix in modality.suffixes}
        self._of_paths = {m.name for m in modalities if not m.inline_strings} | {DEFAULT_COLUMN}
        self.file_columns: set[str] = set()

    def unreadable(self) -> dict[str, str]:
        """Named files that are missing or empty, with the reasons; notes the columns of files."""
        found: dict[str, str] = {}
        for index in range(len(self._source)):
            _, files = self._apart(index)
            self.file_columns.update(files)
            for path in files.values():
                if isinstance(path, Path) and (reason := _fault(path)):
                    found[repr(str(path))] = reason
        return found

    def plain(self) -> Iterator[PackedRow]:
        """Rows without their files."""
        for index in range(len(self._source)):
            yield PackedRow(index, self._apart(index)[0])

    def read(self, left_out: dict[str, str] | None) -> Iterator[PackedRow | None]:
        """Rows with the bytes of their files; None for one that `left_out` then tells of.

        Raises `DataError` for a file that cannot be read where `left_out` is None.
        """
        for index in range(len(self._source)):
            plain, files = self._apart(index)
            try:
                read = {column: _file(column, value) for column, value in files.items()}
            except ReadError as error:
                if left_out is None:
                    raise DataError(f"row {index}: {error}") from None
                left_out[error.source] = error.reason
                yield None
            else:
                yield PackedRow(index, plain, read)

    def _apart(self, index: int) -> tuple[dict[str, Any], dict[str, Path | Blob | bytes]]:
        plain: dict[str, Any] = {}
        files: dict[str, Path | Blob | bytes] = {}
        for column, value in self._source[index].items():
            values = value if isinstance(value, list) else [value]
            found = [self._as_file(column, entry) for entry in values]
            if all(entry is None for entry in found):
                plain[column] = value
            elif len(found) == 1 and found[0] is not None:
                files[column] = found[0]
            else:
                raise DataError(
                    f"row {index}: column '{column}' lists several files; a shard holds one a "
                    "column: write a row for each"
                )
        return plain, files

    def _as_file(self, column: str, value: Any) -> Path | Blob | bytes | None:
        if isinstance(value, Blob | bytes):
            return value
        if not isinstance(value, str):
            return None
        path = (self._source.root or Path()) / value
        is_path = column in self._of_paths or (
            path.suffix.lower() in self._suffixes and path.is_file()
        )
        return path if is_path else None


def _fault(path: Path) -> str | None:
    try:
        return None if path.stat().st_size else "is empty"
    except OSError as error:
        return str(error.strerror)


def _file(column: str, value: Path | Blob | bytes) -> File:
    if isinstance(value, bytes):
        return File(column, value)
    if isinstance(value, Blob):
        return File(value.name, value.read())
    try:
        data = value.read_bytes()
    except OSError as error:
        raise ReadError(value, str(error.strerror)) from None
    if not data:
        raise ReadError(value, "is empty")
    return File(value.name, data)
