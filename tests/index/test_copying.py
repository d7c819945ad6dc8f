"""A library is the same in another place: its rows, its hits, its filters; and it goes on there."""

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from omnialign.cli.app import app
from omnialign.errors import OmniAlignError
from omnialign.index import Index
from omnialign.index.lance import LanceRows
from omnialign.index.rows import vectors_of
from omnialign.testing import toy
from tests.index.conftest import table


@pytest.fixture
def uri(milvus: str) -> str:
    return f"milvus://{milvus}/library_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def index(model: Path, signals: Path, tmp_path: Path) -> Index:
    rows = [
        {"file_name": f"{n}.toy", "label": "even" if n % 2 == 0 else "odd", "size": n}
        for n in range(7)
    ]
    (signals / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (signals / "broken.toy").write_bytes(b"nothing")
    made = Index.create(tmp_path / "library", model)
    made.add(signals)
    return made


def answers(index: Index, signals: Path) -> list[Any]:
    """Hits of words, of a file, of a filter and of segments; cosines to six places."""
    found = [
        index.search("rising", 4),
        index.search(signals / "2.toy", 5, where="label = 'even' and size < 6"),
        index.search("falling", 20, where="label is null or not size = 3", segments=True),
        index.similar(index.search("flat", 1)[0].id, 3, modality="toy_signal"),
    ]
    return [
        [
            {**hit.as_dict(), "cosine": round(hit.cosine, 5), "score": round(hit.score, 5)}
            for hit in hits
        ]
        for hits in found
    ]


def same(one: Index, other: Index, atol: float = 0.0) -> None:
    left, right = table(one), table(other)
    assert sorted(left) == sorted(right)
    for row_id, vector in left.items():
        np.testing.assert_allclose(vector, right[row_id], rtol=0, atol=atol)


def test_to_milvus_and_back(index: Index, signals: Path, uri: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    copied = index.copy_to(uri, progress=lambda done, total: steps.append((done, total)))
    assert (copied.rows, copied.target) == (len(index), uri)
    assert steps[-1] == (len(index), len(index))
    there = Index.open(uri)
    assert there.columns == index.columns
    assert there.modalities == index.modalities
    assert there.set_aside == index.set_aside != {}
    assert answers(there, signals) == answers(index, signals)
    same(there, index)
    there.copy_to(tmp_path / "back")
    back = Index.open(tmp_path / "back")
    same(back, index)
    assert answers(back, signals) == answers(index, signals)


def test_a_library_in_milvus_is_kept_up_to_date(
    model: Path, signals: Path, uri: str, tmp_path: Path
) -> None:
    there, here = Index.create(uri, model), Index.create(tmp_path / "library", model)
    with pytest.raises(OmniAlignError, match="already holds a library"):
        Index.create(uri, model)
    for index in (there, here):
        index.add(signals)
    toy.write_signal(signals / "1.toy", torch.linspace(5, -5, 9))
    (signals / "2.toy").rename(signals / "moved.toy")
    (signals / "3.toy").unlink()
    (signals / "4.toy").write_bytes(b"broken now")
    for index in (there, here):
        report = index.add(signals, prune=True)
        assert (report.changed, report.moved, len(report.gone), len(report.set_aside)) == (
            1,
            1,
            1,
            1,
        )
        assert index.remove("path like '%5.toy'") == 1
        again = Index.open(index.uri).add(signals)
        assert (again.added, again.unchanged, again.rows) == (1, 5, 1)
    same(there, here, atol=1e-6)
    assert there.verify().problems == here.verify().problems == []
    assert there.rebuild(model).added == 6
    same(there, here, atol=1e-6)


def test_a_place_that_is_taken(index: Index, tmp_path: Path) -> None:
    with pytest.raises(OmniAlignError, match="already holds a library; choose another place"):
        index.copy_to(index.uri)


def test_an_interrupted_copy_begins_anew(
    index: Index, signals: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LanceRows.read

    def cut(self: LanceRows, columns: Any) -> Any:
        batch = next(iter(real(self, columns)))
        yield batch.slice(0, 4)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(LanceRows, "read", cut)
        with pytest.raises(KeyboardInterrupt):
            index.copy_to(uri)
    assert not Index.exists(uri)
    assert index.copy_to(uri).rows == len(index)
    same(Index.open(uri), index)


def turned(rows: pa.Table) -> pa.Table:
    """With the last bit of each vector's first number the other way."""
    vectors = vectors_of(rows).copy()
    vectors.view(np.uint32)[:, 0] ^= 1
    column = pa.FixedSizeListArray.from_arrays(vectors.reshape(-1), vectors.shape[1])
    return rows.set_column(rows.schema.get_field_index("vector"), "vector", column)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda rows: rows.slice(1), "1 are missing, 0 differ, and 0 are too many"),
        (lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]), "10 rows 0 are missing"),
        (turned, "10 differ"),
    ],
)
def test_a_copy_that_is_not_the_same_is_refused(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Any, message: str
) -> None:
    real = LanceRows.replace

    def damaged(self: LanceRows, paths: Any, rows: Any) -> None:
        real(self, paths, damage(rows) if not paths else rows)

    monkeypatch.setattr(LanceRows, "replace", damaged)
    with pytest.raises(OmniAlignError, match=message):
        index.copy_to(tmp_path / "copy")
    assert not Index.exists(tmp_path / "copy")


def test_the_command(index: Index, tmp_path: Path) -> None:
    run = CliRunner().invoke(app, ["copy", index.uri, str(tmp_path / "one")])
    assert run.exit_code == 0, run.output
    assert f"{len(index)} rows and 2 documents are in" in run.stderr
    assert "vectors bit by bit" in run.stderr
    run = CliRunner().invoke(app, ["copy", index.uri, str(tmp_path / "two"), "--json"])
    assert json.loads(run.stdout)["rows"] == len(index)
