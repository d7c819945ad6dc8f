"""Which files are looked at, which are gone, and which only cannot be seen."""

import glob
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from omnialign.index import Index
from omnialign.index.collect import is_below
from omnialign.testing import toy

FILES = ["x.a", "one/x.a", "one/x.b", "one/two/x.a", "one/two/.x.a", ".one/x.a", "o[ne]/x.a"]


PATTERNS = "* *.a */*.a ** **/*.a one/**/*.a one/**/x.? **/two/* [!o]* o[n]e **/**/x.a .*/* o[ne]"


@pytest.mark.parametrize("pattern", [*PATTERNS.split(), "one/.*", "one/x.a"])
def test_a_pattern_means_what_glob_means(tmp_path: Path, pattern: str) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    whole = str(tmp_path / pattern)
    exists = os.path.lexists(whole)
    found = [whole] if exists else [m.rstrip("/") for m in glob.glob(whole, recursive=True)]
    for name in FILES:
        path = str(tmp_path / name)
        wanted = any(path == match or path.startswith(match + "/") for match in found)
        assert is_below(path, [whole]) == wanted, name


def test_a_name_that_is_no_text_is_passed_over(index: Index, signals: Path) -> None:
    shutil.copy(signals / "0.toy", os.fsencode(signals / "caf") + b"\xe9.toy")
    shutil.copy(signals / "0.toy", signals / "z.toy")
    manifest = signals / "metadata.jsonl"
    manifest.write_text('{"file_name": "z.toy", "label": "\\ud800"}\n')
    report = index.add(signals)
    assert report.passed_over == {str(signals / r"caf\xe9.toy"): "its name is not UTF-8; rename it"}
    assert report.moved == 1
    assert index.search("a", 9, where="label is not null")[0].metadata == {"label": "?"}


def test_known_contents_are_looked_for_together(
    index: Index, signals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = type(index.rows)
    real, asked = rows.find, list[int]()

    def find(self: Any, column: str, values: Sequence[str], columns: Sequence[str]) -> Any:
        if column == "content":
            asked.append(len(values))
        return real(self, column, values, columns)

    monkeypatch.setattr(rows, "find", find)
    for path in signals.iterdir():
        os.utime(path, (1, 1))
    assert index.add(signals).changed == 8
    assert asked == [8]


def test_files_that_are_set_aside_are_written_in_batches(
    index: Index, signals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omnialign.index import adding

    monkeypatch.setattr(adding, "_ROWS_AT_ONCE", 2)
    for i in range(6):
        (signals / f"bad{i}.toy").write_bytes(b"no signal")
    store, sizes = type(index._store), list[int]()
    real = store.write_documents

    def write(self: Any, documents: Any) -> None:
        sizes.append(len(documents))
        real(self, documents)

    monkeypatch.setattr(store, "write_documents", write)
    index.add(signals)
    assert max(sizes) == 2
    assert len(index.set_aside) == 6


def test_of_a_folder_that_became_empty_nothing_is_pruned(
    index: Index, signals: Path, tmp_path: Path
) -> None:
    shutil.move(signals, tmp_path / "unmounted")
    signals.mkdir()
    report = index.add(signals, prune=True)
    assert report.gone == []
    assert "8 of the library lay there" in report.passed_over[str(signals)]
    assert len(index) == 10
    report = index.add(tmp_path / "unmounted" / "0.toy")
    assert report.moved == 1
    assert len(index) == 13, "the original may come back"


def test_a_note_of_a_file_that_is_gone_leaves(index: Index, signals: Path) -> None:
    (signals / "bad.toy").write_bytes(b"no signal")
    index.add(signals)
    (signals / "bad.toy").unlink()
    index.add(signals)
    assert index.set_aside == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_told_of(index: Index, signals: Path) -> None:
    inner = signals / "inner"
    inner.mkdir()
    toy.write_signal(inner / "9.toy", [1, 2, 3])
    index.add(signals)
    inner.chmod(0)
    try:
        report = index.add(signals, prune=True)
    finally:
        inner.chmod(0o755)
    assert report.gone == []
    assert report.passed_over == {str(inner): "the folder cannot be read: Permission denied"}
    assert json.dumps(report.passed_over)
