"""The local copy that is scanned: it follows the table, and damage to it costs nothing."""

import sys
from pathlib import Path

import pytest
import torch

from omnialign.index import Index
from omnialign.index import snapshot as snapshots
from omnialign.index.approximate import FILE
from omnialign.testing import toy


def answers(index: Index) -> list[tuple[str, float]]:
    hits = Index.open(index.uri).search("a rising signal", 50, segments=True)
    return [(hit.id, round(hit.cosine, 5)) for hit in hits]


def copies(index: Index) -> Path:
    (folder,) = (Path(index.uri) / "snapshots").glob("rows_*")
    return folder


@pytest.mark.parametrize("name", ["vectors.float32", "codes.int8", "scan.json", "rows"])
@pytest.mark.parametrize("damage", ["short", "gone"])
def test_what_is_damaged_is_made_again(index: Index, name: str, damage: str) -> None:
    before = answers(index)
    file = next(copies(index).rglob(f"{name}*"))
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:7])
    assert answers(index) == before


def test_what_an_interrupted_append_left_is_dropped(index: Index, signals: Path) -> None:
    before = answers(index)
    for name, row in {"vectors.float32": 64, "codes.int8": 16, "errors.float32": 4}.items():
        with next(copies(index).rglob(name)).open("ab") as file:
            file.write(b"\0" * (3 * row))
    toy.write_signal(signals / "new.toy", torch.linspace(2, -1, 3))
    index.add(signals)
    found = answers(index)
    assert len(found) == len(before) + 1
    assert [entry for entry in found if entry in before] == before


def test_a_library_that_has_not_changed_is_asked_without_lancedb(
    index: Index, signals: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(index)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "lancedb", None)
        assert answers(index) == before
    toy.write_signal(signals / "new.toy", torch.ones(3))
    index.add(signals)
    assert len(answers(index)) == len(before) + 1


def test_a_graph_answers_and_follows(index: Index, signals: Path) -> None:
    assert index.build_graph() == pytest.approx(1)
    before = answers(index)
    toy.write_signal(signals / "new.toy", torch.linspace(2, -1, 3))
    (signals / "5.toy").unlink()
    index.add(signals, prune=True)
    found = answers(index)
    assert len(found) == len(before)
    assert index.build_graph() == pytest.approx(1)
    assert answers(index) == found


def test_a_copy_that_is_written_anew_drops_its_graph(index: Index, signals: Path) -> None:
    index.build_graph()
    for i in range(6):
        (signals / f"{i}.toy").unlink()
    index.add(signals, prune=True)
    assert len(answers(index)) == 2
    assert not list(copies(index).rglob(FILE))


def test_of_a_library_that_is_only_read_the_copy_is_in_the_cache(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = answers(index)
    monkeypatch.setattr(snapshots.os, "access", lambda *_: False)
    reader = Index.open(index.uri)
    assert len(reader.search("a rising signal", 50, segments=True)) == len(before)
    assert any((snapshots.cache_folder() / "snapshots").iterdir())
