"""Packing: the same rows come back, the same bytes go out, and a killed packing leaves nothing."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnialign.contract import Blob, Source
from omnialign.data.manifest import Manifest
from omnialign.data.packing import pack
from omnialign.data.webdataset import WebDataset
from omnialign.errors import DataError
from omnialign.testing import toy

pytestmark = pytest.mark.usefixtures("toys")
FORMATS = pytest.mark.parametrize("format", ["tar", "parquet"])
Format = Literal["tar", "parquet"]


def reopened(folder: Path, format: str) -> Source:
    return WebDataset(str(folder)) if format == "tar" else Manifest(str(folder))


def opened(row: Any) -> dict[str, Any]:
    return {c: v.read() if isinstance(v, Blob) else v for c, v in row.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Toy files and their manifest, with a row that lacks a file and one that lacks words."""
    folder = tmp_path / "folder"
    (folder / "in").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for i in range(12):
        toy.write_signal(folder / "in" / f"{i}.toy", range(i + 1))
        toy.write_signal(folder / "in" / f"{i}.ECHO", range(i + 2))
        row: dict[str, Any] = {"file_name": f"in/{i}.toy", "toy_echo": f"in/{i}.ECHO"}
        rows.append({**row, "toy_words": ["süß", f"{i}"], "fold": i, "share": i / 7, "ok": i > 5})
    del rows[3]["file_name"], rows[4]["toy_words"]
    rows[5]["extra"] = "in/5.toy"
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@FORMATS
def test_the_same_rows_come_back(folder: Path, tmp_path: Path, format: Format) -> None:
    manifest = Manifest(str(folder))
    done: list[tuple[int, int]] = []
    packed = pack(
        manifest, tmp_path / "out", format=format, progress=lambda *counts: done.append(counts)
    )
    assert packed.num_rows == 12
    assert packed.left_out == {}
    assert done[-1] == (12, 12)
    found = reopened(tmp_path / "out", format)
    assert sorted(found.columns) == sorted(manifest.columns)
    for i in range(12):
        expected = dict(manifest[i])
        for column in {"file_name", "toy_echo", "extra"} & expected.keys():
            expected[column] = (folder / expected[column]).read_bytes()
        assert opened(found[i]) == expected
    again = pack(found, tmp_path / "again", format=format)
    assert [opened(found[i]) for i in range(12)] == [
        opened(reopened(tmp_path / "again", format)[i]) for i in range(12)
    ]
    assert again.num_bytes == packed.num_bytes


@FORMATS
def test_equal_input_gives_equal_bytes_in_shards_of_a_size(
    folder: Path, tmp_path: Path, format: Format, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(12):
        (folder / "in" / f"{i}.toy").write_bytes(bytes([i]) * 400_000)
    packed = [
        pack(Manifest(str(folder)), tmp_path / name, format=format, shard_mib=1)
        for name in ("a", "b")
    ]
    names = [shard.name for shard in packed[0].shards]
    assert names[:2] == [f"shard-000000.{format}", f"shard-000001.{format}"]
    assert len(names) == 6
    for one, other in zip(*(p.shards for p in packed), strict=True):
        assert one.read_bytes() == other.read_bytes()
        assert one.stat().st_size < 1.1 * 2**20
    assert len(reopened(tmp_path / "a", format)) == 12


def test_unreadable_files_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "in" / "1.toy").unlink()
    (folder / "in" / "2.toy").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        pack(Manifest(str(folder)), tmp_path / "out")
    assert f"{folder / 'in/1.toy'}': No such file or directory" in str(caught.value)
    assert f"{folder / 'in/2.toy'}': is empty" in str(caught.value)
    assert "2 files cannot be read" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]
    packed = pack(Manifest(str(folder)), tmp_path / "out", skip_unreadable=True)
    assert packed.num_rows == 10
    assert len(packed.left_out) == 2
    source = WebDataset(str(tmp_path / "out"))
    assert [source[i]["fold"] for i in range(10)] == [0, *range(3, 12)]


def test_the_output_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="out exists; pack into another folder"):
        pack(Manifest(str(folder)), tmp_path / "out")


def test_what_a_format_has_no_place_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 0: a value is none of JSON.*Tensor"):
        pack(toy.ToyPairs(), tmp_path / "out")
    rows = [{"x": 1}, {"x": "one"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"column 'x' mixes types.*--format tar"):
        pack(Manifest(str(tmp_path / "a.jsonl")), tmp_path / "out", format="parquet")
    pack(Manifest(str(tmp_path / "a.jsonl")), tmp_path / "mixed")
    assert [dict(WebDataset(str(tmp_path / "mixed"))[i]) for i in range(2)] == rows
    toy.write_signal(tmp_path / "a.toy", [1])
    (tmp_path / "b.jsonl").write_text('{"toy_signal": ["a.toy", "a.toy"]}')
    with pytest.raises(DataError, match="column 'toy_signal' lists several files"):
        pack(Manifest(str(tmp_path / "b.jsonl")), tmp_path / "out")
    (tmp_path / "c.jsonl").write_text('{"words": "a.toy"}\n{"words": "other"}')
    with pytest.raises(DataError, match="column 'words' mixes files with values"):
        pack(Manifest(str(tmp_path / "c.jsonl")), tmp_path / "out", format="parquet")
    assert {path.name for path in tmp_path.iterdir()} & {"out", ".out.partial"} == set()


def test_row_groups_are_small(folder: Path, tmp_path: Path) -> None:
    for i in range(12):
        (folder / "in" / f"{i}.toy").write_bytes(bytes([i]) * 100_000)
    (shard,) = pack(Manifest(str(folder)), tmp_path / "out", format="parquet").shards
    groups = pq.ParquetFile(shard).metadata
    assert [groups.row_group(g).num_rows for g in range(groups.num_row_groups)] == [3, 3, 3, 3]


def test_bytes_without_a_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [b"a", None], "n": [1, 2]}), tmp_path / "a.parquet")
    pack(Manifest(str(tmp_path / "a.parquet")), tmp_path / "out")
    source = WebDataset(str(tmp_path / "out"))
    assert [opened(source[i]) for i in range(2)] == [{"x": b"a", "n": 1}, {"n": 2}]


def test_a_killed_packing_leaves_nothing_and_can_be_run_again(folder: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys, signal\n"
        "from omnialign.data.manifest import Manifest\n"
        "from omnialign.data.packing import pack\n"
        "from omnialign.testing import toy\n"
        "def kill(done, total):\n"
        "    if done == 7: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with toy.installed():\n"
        "    pack(Manifest(sys.argv[1]), sys.argv[2], progress=kill)\n"
    )
    killed = [sys.executable, "-c", code, str(folder), str(tmp_path / "out")]
    assert subprocess.run(killed, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    again = pack(Manifest(str(folder)), tmp_path / "out")
    whole = pack(Manifest(str(folder)), tmp_path / "whole")
    assert [s.read_bytes() for s in again.shards] == [s.read_bytes() for s in whole.shards]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "out", "whole"]
