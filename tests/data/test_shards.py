"""Which files a path means."""

from pathlib import Path

import pytest

from omnialign.data.shards import shard_files
from omnialign.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("train-08.tar", "train-09.tar", "train-10.tar", "test-00.tar", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("train-08.tar", ["train-08.tar"]),
        ("train-{08..10}.tar", ["train-08.tar", "train-09.tar", "train-10.tar"]),
        ("{test,train}-{00,09}.tar", None),
        ("{train-09,test-00}.tar", ["train-09.tar", "test-00.tar"]),
        ("{test-*,train-0[89]}.tar", ["test-00.tar", "train-08.tar", "train-09.tar"]),
        ("{train-*,train-09}.tar", ["train-08.tar", "train-09.tar", "train-10.tar"]),
        ("", ["test-00.tar", "train-08.tar", "train-09.tar", "train-10.tar"]),
    ],
)
def test_patterns(folder: Path, path: str, names: list[str] | None) -> None:
    if names is None:
        with pytest.raises(DataError, match=r"no \.tar file at .*test-09\.tar, of .*\{test,train"):
            shard_files(str(folder / path), ".tar")
    else:
        assert [file.name for file in shard_files(str(folder / path), ".tar")] == names


def test_a_file_with_braces_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "a{1,2}.tar").touch()
    assert shard_files(str(tmp_path / "a{1,2}.tar"), ".tar") == [tmp_path / "a{1,2}.tar"]


@pytest.mark.parametrize("path", ["none.tar", "none-*.tar", "empty"])
def test_nothing_there(folder: Path, path: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.tar file"):
        shard_files(str(folder / path), ".tar")
