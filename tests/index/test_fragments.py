"""Rows that several processes write, and one version takes in: no cluster is started here."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from omnialign.errors import OmniAlignError
from omnialign.index import Index
from omnialign.index.lance import LanceStore
from omnialign.index.rows import schema

pytest.importorskip("lance")
pytestmark = pytest.mark.filterwarnings("ignore:lance is not fork-safe")

from omnialign.index.fragments import Fragments, write  # noqa: E402

DIM = 4


def rows(*ids: str) -> pa.Table:
    """A row an id `PATH-SEGMENT`."""
    vectors = np.random.default_rng(len(ids)).normal(size=(len(ids), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pa.Table.from_pylist(
        [
            {
                "id": row_id,
                "path": row_id.partition("-")[0],
                "content": "",
                "signature": 1,
                "modality": "toy",
                "segment": 0,
                "metadata": "{}",
                "vector": vector,
            }
            for row_id, vector in zip(ids, vectors, strict=True)
        ],
        schema=schema(DIM),
    )


@pytest.fixture
def library(tmp_path: Path) -> Any:
    found = LanceStore(str(tmp_path / "library")).rows("rows_1", DIM)
    found.replace([], rows("a-0", "a-1", "b-0"))
    found.replace([], rows("c-0"))
    return found


def held(library: Any) -> list[str]:
    return sorted(row for batch in library.read(["id"]) for row in batch.column("id").to_pylist())


def data_files(fragments: Fragments) -> set[str]:
    return set(os.listdir(Path(fragments.uri) / "data"))


def test_one_version_takes_old_rows_out_and_new_ones_in(library: Any) -> None:
    before = int(library.version)
    fragments = Fragments(library)
    fragments.add(write(fragments.uri, fragments.storage_version, rows("a-7", "d-0")))
    fragments.add(write(fragments.uri, fragments.storage_version, rows("e-0")))
    fragments.replace(["a", "c", "nowhere"], rows("it's-0"))
    assert held(library) == ["a-0", "a-1", "b-0", "c-0"]
    fragments.commit()
    assert held(library) == ["a-7", "b-0", "d-0", "e-0", "it's-0"]
    assert int(library.version) == before + 1
    library.replace(["it's"], rows("f-0"))  # LanceDB goes on from there
    library.settle()
    assert held(library) == ["a-7", "b-0", "d-0", "e-0", "f-0"]


def test_nothing_to_change_is_no_version(library: Any) -> None:
    before = library.version
    fragments = Fragments(library)
    fragments.replace(["nowhere"], rows())
    fragments.commit()
    assert library.version == before


def test_rows_of_files_that_did_not_come_whole_are_dropped(library: Any) -> None:
    fragments = Fragments(library)
    one = write(fragments.uri, fragments.storage_version, rows("x-0", "y-0", "y-1"))
    two = write(fragments.uri, fragments.storage_version, rows("z-0"))
    fragments.add([*one, *two])
    fragments.drop(one, ["y"])
    fragments.commit()
    assert held(library) == ["a-0", "a-1", "b-0", "c-0", "x-0", "z-0"]


def test_who_died_before_the_commit_leaves_nothing_that_is_seen(library: Any) -> None:
    dead = Fragments(library)
    named = data_files(dead)
    dead.add(write(dead.uri, dead.storage_version, rows("x-0")))
    assert data_files(dead) > named
    again = Fragments(library)
    again.add(write(again.uri, again.storage_version, rows("x-0")))
    again.commit()
    assert held(library) == ["a-0", "a-1", "b-0", "c-0", "x-0"]
    again.tidy()
    assert len(data_files(again)) == len(named) + 1
    assert held(library) == ["a-0", "a-1", "b-0", "c-0", "x-0"]


def test_a_file_that_a_node_wrote_for_itself(library: Any) -> None:
    before = library.version
    fragments = Fragments(library)
    written = write(fragments.uri, fragments.storage_version, rows("x-0"))
    fragments.add(written)
    for name in data_files(fragments):
        os.remove(Path(fragments.uri) / "data" / name)
    with pytest.raises(OmniAlignError, match="must reach the library under the same path"):
        fragments.commit()
    assert library.version == before


def test_an_engine_that_is_none(index: Index, signals: Path) -> None:
    with pytest.raises(OmniAlignError, match="engine is 'spark'; it is 'local' or 'ray'"):
        index.add(signals, engine="spark")
