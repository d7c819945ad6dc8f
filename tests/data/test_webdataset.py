"""Tar shards in the WebDataset convention."""

import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest

from omnialign.contract import Blob
from omnialign.data.rows import PairRows, identity_number
from omnialign.data.webdataset import WebDataset
from omnialign.errors import DataError, ReadError
from omnialign.recipe import Rows, parse_recipe
from omnialign.testing import toy

SIGNAL = toy.MAGIC + b"1\n2\n"


def write(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def row(source: WebDataset, index: int) -> dict[str, Any]:
    return {k: v.read() if isinstance(v, Blob) else v for k, v in source[index].items()}


def test_members_with_one_name_are_a_row(tmp_path: Path) -> None:
    fields = json.dumps({"split": "train", "text": ["a", "b"], "no": None, "empty": ""}).encode()
    write(
        tmp_path / "a.tar",
        {
            "0.PNG": b"png",
            "0.txt": "süß".encode(),
            "0.cls": b"7\n",
            "in/0.png": b"other",
            "0.json": fields,
            "0.left.jpg": b"left",
            "0.box.json": b"[1, 2]",
            ".hidden.png": b"x",
            "in/.hidden": b"x",
            "README": b"x",
            "0.none": b"",
        },
    )
    write(tmp_path / "b.tar", {"0.jpg": b"jpg", "0.cls": b"cat", "1.json": b"[3]"})
    source = WebDataset(str(tmp_path))
    assert len(source) == 4
    columns = ["png", "txt", "cls", "split", "text", "left", "box", "jpg", "json"]
    assert source.columns == columns
    assert row(source, 0) == {
        "png": b"png",
        "txt": "süß",
        "cls": 7,
        "split": "train",
        "text": ["a", "b"],
        "left": b"left",
        "box": [1, 2],
    }
    assert row(source, 1) == {"png": b"other"}
    assert row(source, 2) == {"cls": "cat", "jpg": b"jpg"}
    assert row(source, 3) == {"json": [3]}
    assert "txt" not in source[1]
    assert source[0].get("no") is None
    assert str(source[1]["png"]) == f"{tmp_path / 'a.tar'}: in/0.png"
    assert str(source[0]["left"]) == f"{tmp_path / 'a.tar'}: 0.left.jpg"
    with pytest.raises(IndexError):
        source[4]
    again = pickle.loads(pickle.dumps(source))
    assert [row(again, i) for i in range(4)] == [row(source, i) for i in range(4)]


def test_words_that_are_no_utf8_stay_bytes(tmp_path: Path) -> None:
    source = WebDataset(
        str(write(tmp_path / "a.tar", {"0.txt": b"\xff", "1.txt": b"\xef\xbb\xbfa"}))
    )
    assert source[0]["txt"].read() == b"\xff"
    assert source[1]["txt"] == "a"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"0.png": b"x", "0.PNG": b"y"}, "a.tar: member '0.PNG' is the second .* column 'png'"),
        ({"0.x.png": b"x", "0.x.jpg": b"y"}, "member '0.x.jpg' is the second .* column 'x'"),
        ({"0.png": b"x", "0.json": b"{"}, "a.tar: 0.json: not valid JSON"),
        ({"0.json": b"[" * 100_000}, "a.tar: 0.json: not valid JSON"),
        ({"README": b"x"}, r"no member is called KEY\.EXTENSION"),
    ],
)
def test_broken_shards(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        WebDataset(str(write(tmp_path / "a.tar", files)))


def test_a_shard_that_shrinks_or_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", {"0.png": b"x" * 1000})
    blob = WebDataset(str(path))[0]["png"]
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(ReadError, match=r"a\.tar: 0\.png.*ends after 188 of its 1000 bytes"):
        blob.read()
    path.unlink()
    with pytest.raises(ReadError, match=r"a\.tar: 0\.png.*No such file"):
        blob.read()


def pair_rows(path: Path, **wanted: Any) -> PairRows:
    table = toy.recipe()
    table["data"]["rows"] = {"source": {"name": "webdataset", "path": str(path)}}
    rows = Rows(data="rows", **wanted)
    return PairRows(parse_recipe(table), rows, ["toy_signal", "toy_words"])


@pytest.mark.usefixtures("toys")
class TestPairRows:
    def test_a_modality_s_own_suffix_is_its_column(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.tar", {"0.toy": SIGNAL, "0.txt": b"one", "1.toy": b"no words"})
        rows = pair_rows(path, columns={"toy_words": "txt"})
        assert len(rows) == 1
        (item,) = rows.items(0, "toy_signal")
        assert item.value.read() == SIGNAL
        assert rows.items(0, "toy_words")[0].value == "one"

    def test_equal_bytes_are_one_item(self, tmp_path: Path) -> None:
        files = {f"{i}.toy": SIGNAL + b"3\n" * (i == 2) for i in range(3)}
        files |= {f"{i}.json": b'{"toy_words": "x", "fold": %d}' % i for i in range(3)}
        rows = pair_rows(write(tmp_path / "a.tar", files), where={"fold": [0, 1, 2]})
        first, same, other = (identity_number(rows.items(i, "toy_signal")[0]) for i in range(3))
        assert first == same != other
        assert len(pair_rows(tmp_path / "a.tar", where={"fold": 1})) == 1

    def test_what_cannot_be_read_is_named_by_its_member(self, tmp_path: Path) -> None:
        rows = pair_rows(
            write(tmp_path / "a.tar", {"0.toy": b"bad", "0.json": b'{"toy_words":"x"}'})
        )
        from omnialign.building import build

        space = build(parse_recipe(toy.recipe()))
        with pytest.raises(ReadError, match=r"cannot read '.*a\.tar: 0\.toy': toy_signal wants"):
            space.tower("toy_signal").pipeline.read(rows.items(0, "toy_signal")[0].value)
