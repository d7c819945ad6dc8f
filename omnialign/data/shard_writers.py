"""Writers of shards: tar in the WebDataset convention, and Parquet with bytes.

Equal rows give equal bytes: no clock, no owner and no random number goes in.
"""

from __future__ import annotations

import json
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

from omnialign.errors import DataError

ROW_GROUP_BYTES = 2**18
"""Of files in a row group of Parquet, which is read for each access to a row of it."""
MAX_ROW_GROUP_ROWS = 10_000


@dataclass(frozen=True)
class File:
    """Bytes, and the name that they have or had."""

    name: str
    data: bytes


@dataclass(frozen=True)
class PackedRow:
    """Plain values and files, each by column; of a source's row `index`."""

    index: int
    plain: Mapping[str, Any]
    files: Mapping[str, File] = field(default_factory=dict[str, File])

    @property
    def num_bytes(self) -> int:
        return sum(len(file.data) for file in self.files.values())


class ShardWriter(ABC):
    """Writes rows into numbered files, and begins a new one where the next would be too large."""

    suffix: ClassVar[str]

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._is_open = False
        self.shards: list[Path] = []

    def add(self, row: PackedRow) -> None:
        """Raises `DataError` for a value that the format has no place for."""
        if self._num_bytes + row.num_bytes > self._max_bytes:
            self.close()
        if not self._is_open:
            self.shards.append(self._folder / f"shard-{len(self.shards):06d}{self.suffix}")
            self._num_bytes = 0
            self._open(self.shards[-1])
            self._is_open = True
        self._num_bytes += row.num_bytes
        self._write(row)

    @abstractmethod
    def _open(self, shard: Path) -> None: ...

    @abstractmethod
    def _write(self, row: PackedRow) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    def close(self) -> None:
        """Finishes the shard that is being written, if there is one."""
        if self._is_open:
            self._is_open = False
            self._close()


class TarWriter(ShardWriter):
    """The files of row 12 are `000000012.COLUMN.SUFFIX`, its plain values `000000012.json`."""

    suffix = ".tar"

    def _open(self, shard: Path) -> None:
        self._tar = tarfile.open(shard, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def _write(self, row: PackedRow) -> None:
        for column, file in row.files.items():
            if "/" in column:
                raise DataError(f"column '{column}' holds files; in a tar its name wants no slash")
            suffix = Path(file.name).suffix.lower()
            self._add(f"{row.index:09d}.{column}{suffix or '.bin'}", file.data)
        try:
            fields = json.dumps(row.plain, ensure_ascii=False)
        except (TypeError, ValueError) as error:
            raise DataError(
                f"row {row.index}: a value is none of JSON ({error}); --format parquet keeps it"
            ) from None
        if row.plain:
            self._add(f"{row.index:09d}.json", fields.encode("utf-8", "surrogatepass"))

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        self._tar.addfile(member, BytesIO(data))

    def _close(self) -> None:
        self._tar.close()


class ParquetWriter(ShardWriter):
    """Files are `{bytes, path}` structs, uncompressed, in small row groups for random access."""

    suffix = ".parquet"

    def __init__(self, folder: Path, max_bytes: int, schema: Any) -> None:
        super().__init__(folder, max_bytes)
        self._schema = schema
        self._group: list[PackedRow] = []
        self._group_bytes = 0

    @staticmethod
    def schema(columns: Iterable[str], plain: Iterable[PackedRow], files: set[str]) -> Any:
        """The Arrow schema of rows whose `files` are columns of files.

        Raises `DataError` for a column whose values have no type in common.
        """
        import pyarrow

        file = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        kinds: dict[str, Any] = {}
        rows = list(plain)
        for column in columns:
            values = [row.plain[column] for row in rows if column in row.plain]
            if column in files:
                if values:
                    raise DataError(f"column '{column}' mixes files with values; --format tar can")
                kinds[column] = file
                continue
            try:
                kinds[column] = pyarrow.array(values).type
            except pyarrow.ArrowException as error:
                raise DataError(
                    f"column '{column}' mixes types ({error}); --format tar keeps them"
                ) from None
        return pyarrow.schema(kinds)

    def _open(self, shard: Path) -> None:
        import pyarrow.parquet

        self._file = pyarrow.parquet.ParquetWriter(
            shard, self._schema, compression="none", use_dictionary=False
        )

    def _write(self, row: PackedRow) -> None:
        self._group.append(row)
        self._group_bytes += row.num_bytes
        if self._group_bytes >= ROW_GROUP_BYTES or len(self._group) == MAX_ROW_GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow

        rows = [
            {
                **row.plain,
                **{c: {"bytes": f.data, "path": f.name} for c, f in row.files.items()},
            }
            for row in self._group
        ]
        if rows:
            self._file.write_table(pyarrow.Table.from_pylist(rows, schema=self._schema))
        self._group, self._group_bytes = [], 0

    def _close(self) -> None:
        with self._file:
            self._flush()
