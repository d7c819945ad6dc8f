"""Manifests: every format, and every way in which one can be wrong."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from omnialign.data.manifest import Manifest
from omnialign.errors import DataError

ROWS: list[dict[str, Any]] = [
    {"file_name": "a.toy", "text": ["one", "two"], "fold": 1},
    {"file_name": "b.toy", "text": ["three"]},
]


def jsonl(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", "utf-8")
    return path


def rows(manifest: Manifest) -> list[dict[str, Any]]:
    return [dict(manifest[i]) for i in range(len(manifest))]


def test_jsonl(tmp_path: Path) -> None:
    manifest = Manifest(str(jsonl(tmp_path / "pairs.jsonl")))
    assert rows(manifest) == ROWS
    assert manifest.columns == ["file_name", "text", "fold"]
    assert manifest.root == tmp_path


def test_a_byte_order_mark_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"x": 1}\n')
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfx,y\n1,2\n")
    assert Manifest(str(tmp_path / "a.jsonl")).columns == ["x"]
    assert Manifest(str(tmp_path / "a.csv")).columns == ["x", "y"]


def test_csv_keeps_quoted_text_and_drops_empty_cells(tmp_path: Path) -> None:
    path = tmp_path / "pairs.CSV"
    path.write_text('file_name,text\na.toy,"one, or\ntwo"\nb.toy,\n')
    assert rows(Manifest(str(path))) == [
        {"file_name": "a.toy", "text": "one, or\ntwo"},
        {"file_name": "b.toy"},
    ]


def test_empty_cells_are_dropped(tmp_path: Path) -> None:
    table = [{"x": 1, "y": None, "z": []}, {"x": 0, "y": False, "z": [""]}]
    assert rows(Manifest(str(jsonl(tmp_path / "a.jsonl", table)))) == [{"x": 1}, table[1]]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "pairs.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert rows(Manifest(str(path))) == ROWS


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
def test_a_folder_in_the_hugging_face_convention(tmp_path: Path, name: str) -> None:
    if name.endswith("jsonl"):
        jsonl(tmp_path / name)
    elif name.endswith("csv"):
        (tmp_path / name).write_text("file_name,text,fold\na.toy,one,1\n")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / name)
    manifest = Manifest(str(tmp_path))
    assert list(manifest.columns) == ["file_name", "text", "fold"]
    assert manifest.root == tmp_path


def test_a_caption_of_100_000_characters(tmp_path: Path) -> None:
    words = "word " * 20_000
    (tmp_path / "a.csv").write_text(f"text\n{words}\n")
    assert Manifest(str(tmp_path / "a.csv"))[0]["text"] == words


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", r"a\.jsonl has no rows"),
        ("a.jsonl", b'{"x": 1}\n{"x": 2\n', r"a\.jsonl, line 2: not valid JSON"),
        ("a.jsonl", b'{"x": 1}\n\n[1]\n', r"a\.jsonl, line 3: wants an object, found list"),
        ("a.jsonl", b'{"x": "\xff"}\n', r"a\.jsonl: cannot be read: .*utf-8"),
        ("a.csv", b"x,y\n", r"a\.csv has no rows"),
        ("a.csv", b"x,y\n1,2\n3\n", r"a\.csv, line 3: wants 2 cells"),
        ("a.csv", b"x,y\n1,2,3\n", r"a\.csv, line 2: wants 2 cells"),
        ("a.csv", b'x\n"a"b\n', r"a\.csv, line 2: not valid CSV"),
        ("a.parquet", b"PAR1 but no more", r"a\.parquet: not valid Parquet"),
        ("a.parquet", b"", r"a\.parquet: not valid Parquet"),
        ("a.txt", b"x", r"ends in \.jsonl, \.csv or \.parquet, not '\.txt'"),
    ],
)
def test_broken_manifests(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Manifest(str(tmp_path / name))


def test_folders_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is empty; it wants one of metadata\.jsonl"):
        Manifest(str(tmp_path))
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match="has no manifest"):
        Manifest(str(tmp_path))
    with pytest.raises(DataError, match=r"no manifest or folder at .*nowhere"):
        Manifest(str(tmp_path / "nowhere"))
