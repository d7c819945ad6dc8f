"""Parquet with bytes: random access by row group."""

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnialign.contract import Blob
from omnialign.data import parquet
from omnialign.data.manifest import Manifest
from omnialign.data.parquet import ParquetRows
from omnialign.errors import DataError, ReadError

FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def table(first: int, num_rows: int) -> pa.Table:
    rows = range(first, first + num_rows)
    return pa.table(
        {
            "raw": pa.array([None if i % 3 == 0 else b"r%d" % i for i in rows], pa.binary()),
            "file": pa.array([{"bytes": b"f%d" % i, "path": f"{i}.png"} for i in rows], FILE),
            "kept": pa.array([{"bytes": None, "path": f"{i}.png"} for i in rows], FILE),
            "views": pa.array(
                [[{"bytes": b"v", "path": None}] * (i % 2) for i in rows], pa.list_(FILE)
            ),
            "text": [[f"c{i}"] if i % 2 else [] for i in rows],
            "number": list(rows),
        }
    )


def opened(value: Any) -> Any:
    if isinstance(value, list):
        return [opened(entry) for entry in value]
    return value.read() if isinstance(value, Blob) else value


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for number in range(3):
        pq.write_table(table(7 * number, 7), tmp_path / f"{number}.parquet", row_group_size=3)
    return tmp_path


@pytest.mark.parametrize("max_cache_bytes", [0, 2**20])
def test_every_cell_of_every_shard(
    shards: Path, max_cache_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "MAX_CACHE_BYTES", max_cache_bytes)
    for path in (shards, shards / "{0..2}.parquet", shards / "*.parquet"):
        source = pickle.loads(pickle.dumps(Manifest(str(path))))
        assert len(source) == 21
        assert source.root == shards
        assert source.columns == ["raw", "file", "kept", "views", "text", "number"]
        for i in (20, 0, 13, 6, 7, 1, 20):
            expected: dict[str, Any] = {"file": b"f%d" % i, "kept": f"{i}.png", "number": i}
            expected |= {"raw": b"r%d" % i} if i % 3 else {}
            expected |= {"views": [b"v"], "text": [f"c{i}"]} if i % 2 else {}
            assert {c: opened(value) for c, value in source[i].items()} == expected
    assert str(source[8]["file"]) == f"{shards / '1.parquet'}: row 8, 8.png"
    assert str(source[8]["raw"]) == f"{shards / '1.parquet'}: row 8, raw"
    with pytest.raises(IndexError):
        source[21]


def test_bytes_are_not_read_before_they_are_looked_at(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    original = parquet._read

    def counting(file: Path, function: Any, *group: int, columns: Any) -> Any:
        read.append((file.name, *group, *columns))
        return original(file, function, *group, columns=columns)

    monkeypatch.setattr(parquet, "_read", counting)
    rows = ParquetRows([shards / "0.parquet"])
    assert read == [("0.parquet", "text", "number")]
    assert all(rows.has(i, "file") for i in range(7))
    assert len(read) == 1
    rows.value(4, "file").read()
    rows.value(3, "file").read()
    assert read[1:] == [("0.parquet", 1, "file")]


def test_only_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [b"a", b"b"]}), tmp_path / "a.parquet")
    source = Manifest(str(tmp_path))
    assert [source[i]["x"].read() for i in range(2)] == [b"a", b"b"]


def test_shards_of_different_tables(shards: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), shards / "9.parquet")
    with pytest.raises(DataError, match=r"9\.parquet has other columns or types than .*0\.parquet"):
        Manifest(str(shards))


def test_no_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": pa.array([], pa.binary())}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet has no rows"):
        Manifest(str(tmp_path / "a.parquet"))


def test_a_damaged_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": [b"a" * 1000] * 4}), path, compression="zstd", row_group_size=2)
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56
    path.write_bytes(data)
    source = Manifest(str(path))
    assert source[2]["x"].read() == b"a" * 1000
    with pytest.raises(ReadError, match=r"a\.parquet, row group 0.*not valid Parquet"):
        source[0]["x"].read()
