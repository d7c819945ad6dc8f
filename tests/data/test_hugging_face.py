"""What Hugging Face `datasets` loads, undecoded."""

import json
import pickle
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from omnialign.contract import Blob
from omnialign.data.hugging_face import HuggingFace
from omnialign.data.hugging_face_stream import HuggingFaceStream
from omnialign.errors import DataError

datasets = pytest.importorskip("datasets", reason="omnialign[datasets] is not installed")
NUM_ROWS = 30


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "sound": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
            "views": datasets.List(datasets.Image()),
            "text": datasets.List(datasets.Value("string")),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    rows = range(NUM_ROWS)
    content: dict[str, Any] = {
        "picture": [{"bytes": b"p%d" % i, "path": f"{i}.png"} for i in rows],
        "sound": [{"bytes": None, "path": f"{i}.wav"} if i % 2 else None for i in rows],
        "views": [[{"bytes": b"v", "path": None}] * (i % 3) for i in rows],
        "text": [[f"c{i}"] for i in rows],
        "label": [i % 3 - 1 for i in rows],
    }
    return datasets.Dataset.from_dict(content, features=features)


def opened(value: Any) -> Any:
    if isinstance(value, list):
        return [opened(entry) for entry in value]
    return value.read() if isinstance(value, Blob) else value


def test_files_stay_bytes_and_labels_become_words(tmp_path: Path, dataset: Any) -> None:
    dataset.shuffle(seed=0).train_test_split(10, seed=0).save_to_disk(tmp_path / "saved")
    source = HuggingFace(str(tmp_path / "saved"))
    assert len(source) == 20
    assert len(HuggingFace(str(tmp_path / "saved"), split="test")) == 10
    assert source.columns == ["picture", "sound", "views", "text", "label"]
    again = pickle.loads(pickle.dumps(source))
    seen: set[int] = set()
    for i in range(20):
        number = int(source[i]["text"][0][1:])
        seen.add(number)
        expected: dict[str, Any] = {"picture": b"p%d" % number, "text": [f"c{number}"]}
        expected |= {"sound": f"{number}.wav"} if number % 2 else {}
        expected |= {"views": [b"v"] * (number % 3)} if number % 3 else {}
        expected |= {"label": ["cat", "dog"][number % 3 - 1]} if number % 3 else {}
        for row in (source[i], again[i]):
            assert {column: opened(value) for column, value in row.items()} == expected
    assert len(seen) == 20
    assert str(source[3]["picture"]).startswith(f"datasets {tmp_path / 'saved'}, train: row 3, ")


def test_one_split_alone(tmp_path: Path, dataset: Any) -> None:
    dataset.save_to_disk(tmp_path / "saved")
    assert source_text(HuggingFace(str(tmp_path / "saved"))) == [f"c{i}" for i in range(NUM_ROWS)]


def test_a_folder_of_data_files(tmp_path: Path, dataset: Any) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    dataset.select_columns(["picture", "text"]).to_parquet(folder / "train.parquet")
    (tmp_path / "lines").mkdir()
    lines = "\n".join(json.dumps({"text": [f"c{i}"]}) for i in range(3))
    (tmp_path / "lines" / "test.jsonl").write_text(lines)
    source = HuggingFace(str(folder))
    assert source_text(source) == [f"c{i}" for i in range(NUM_ROWS)]
    assert source[4]["picture"].read() == b"p4"
    assert source_text(HuggingFace(str(tmp_path / "lines"), split="test")) == ["c0", "c1", "c2"]


def test_a_slice_without_rows(tmp_path: Path, dataset: Any) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    dataset.select_columns("text").to_parquet(folder / "train.parquet")
    assert len(HuggingFace(str(folder), split="train[:3]")) == 3
    with pytest.raises(DataError, match=r"split 'train\[:0\]' of .* corresponds to no data"):
        HuggingFace(str(folder), split="train[:0]")


def source_text(source: HuggingFace) -> list[str]:
    return [source[i]["text"][0] for i in range(len(source))]


@pytest.mark.parametrize("source", [HuggingFace, partial(HuggingFaceStream, num_rows=3)])
def test_a_split_that_is_not_there(tmp_path: Path, dataset: Any, source: Any) -> None:
    dataset.train_test_split(10).save_to_disk(tmp_path / "both")
    with pytest.raises(
        DataError, match=r"both has no split 'tset'; .*'test'\? valid: test, train$"
    ):
        source(str(tmp_path / "both"), split="tset")
    dataset.save_to_disk(tmp_path / "nameless")
    with pytest.raises(DataError, match="no split 'train'; valid: none; or leave split out"):
        source(str(tmp_path / "nameless"), split="train")
    dataset.to_parquet(tmp_path / "files" / "test.parquet")
    named = datasets.load_dataset(str(tmp_path / "files"), split="test")
    named.save_to_disk(tmp_path / "named")
    for split in (None, "test"):
        row = source(str(tmp_path / "named"), split=split)[1]
        assert ", test: row 1, " in str(row["picture"])
    with pytest.raises(DataError, match="no split 'train'; valid: test; or leave split out"):
        source(str(tmp_path / "named"), split="train")


def test_what_cannot_be_loaded(tmp_path: Path, dataset: Any) -> None:
    with pytest.raises(DataError, match=r"cannot load split 'train' of .*nowhere"):
        HuggingFace(str(tmp_path / "nowhere"))
    for options in ({}, {"path": "a", "repository": "b"}):
        with pytest.raises(DataError, match="wants either path"):
            HuggingFace(**options)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'omnialign\[datasets\]'"):
        HuggingFace("anything")
