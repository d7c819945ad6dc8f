"""A library in Milvus: what is written comes back, whole whenever it is read."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from omnialign.errors import OmniAlignError
from omnialign.index.rows import schema, vectors_of
from omnialign.index.where import ROW_COLUMNS, Where
from tests.index.milvus_server import milvus_lite
from tests.index.test_conditions import COLUMNS, is_true, random_filter, random_rows

pytest.importorskip("pymilvus", reason="pymilvus is not installed")

from omnialign.index.milvus import MilvusStore
from omnialign.index.milvus_connection import TOKEN, Address, MilvusConnection
from omnialign.index.milvus_rows import MilvusRows

DIM = 8


@pytest.fixture
def uri(milvus: str) -> str:
    return f"milvus://{milvus}/library_{uuid.uuid4().hex[:8]}"


@pytest.fixture
def store(uri: str) -> MilvusStore:
    return MilvusStore(uri)


@pytest.fixture
def rows(store: MilvusStore) -> MilvusRows:
    return store.rows("rows", DIM)


def table(path: str, segments: int, seed: int = 0, **columns: Any) -> pa.Table:
    """Rows of one file; `seed` tells one version of it from another."""
    rng = np.random.default_rng([seed, *path.encode()])
    metadata = json.dumps(columns.pop("metadata", {}), ensure_ascii=False, sort_keys=True)
    row = {"path": path, "content": f"c{seed}", "signature": -(2**63) + seed, "modality": "sight"}
    made = [
        row
        | {"id": f"{path_id(path)}:{seed}-{n}"}
        | {"segment": n, "metadata": metadata}
        | {"start_seconds": n / 3, "end_seconds": None, "vector": unit(rng)}
        | columns
        for n in range(segments)
    ]
    return pa.Table.from_pylist(made, schema=schema(DIM))


def path_id(path: str) -> str:
    """For people to read, unlike the hashes of a library; of letters and digits alike."""
    return re.sub(r"[^A-Za-z0-9]", "", path)


def unit(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    vector = rng.standard_normal(DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


def everything(rows: MilvusRows) -> pa.Table:
    names = schema(DIM).names
    batches = list(rows.read(names))
    return pa.Table.from_batches(batches, schema=schema(DIM)).sort_by([("id", "ascending")])


def stored(rows: MilvusRows) -> int:
    """How many rows lie in the collection, also those that are not to be seen."""
    found = rows._milvus("query", rows._collection, filter="", output_fields=["count(*)"])
    return found[0]["count(*)"]


class TestAddress:
    def test_parts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(TOKEN, "from:environment")
        assert Address.parse("milvus://host/pets") == Address(
            "http://host:19530", "pets", "from:environment"
        )
        assert Address.parse("milvus+tls://me:p%40ss@host:443/shop/pets") == Address(
            "https://host:443", "pets", "me:p@ss", "shop"
        )

    @pytest.mark.parametrize(
        "uri", ["milvus://", "milvus://h", "milvus://h/a/b/c", "milvus://h/1-2"]
    )
    def test_what_is_no_library(self, uri: str) -> None:
        with pytest.raises(OmniAlignError, match="wanted milvus://HOST:PORT/NAME"):
            MilvusStore(uri)

    def test_a_token_is_not_shown(self) -> None:
        assert MilvusStore("milvus://secret@host/pets").uri == "milvus://host/pets"
        with pytest.raises(OmniAlignError) as caught:
            MilvusStore("milvus://secret@host/no-name")
        assert "secret" not in str(caught.value)

    def test_no_server(self, caplog: pytest.LogCaptureFixture) -> None:
        with pytest.raises(OmniAlignError, match=r"no Milvus answers at http://127\.0\.0\.1:1;"):
            MilvusStore("milvus://127.0.0.1:1/pets").exists()
        assert "Traceback" not in caplog.text


class TestDocuments:
    def test_are_kept_by_key(self, store: MilvusStore, uri: str) -> None:
        assert not store.exists()
        assert store.documents() == {}
        store.write_documents({"about": "{}", "set-aside//a 'b'\"\\": "é\n", "set-b": ""})
        store.write_documents({"about": "two"})
        again = MilvusStore(uri)
        assert again.exists()
        assert again.documents("set-aside/") == {"set-aside//a 'b'\"\\": "é\n"}
        assert again.documents("about") == {"about": "two"}
        again.remove_documents(["about", "set-b", "nothing"])
        assert list(store.documents()) == ["set-aside//a 'b'\"\\"]

    def test_too_long(self, store: MilvusStore) -> None:
        with pytest.raises(OmniAlignError, match="'about' has 80000 bytes; Milvus keeps at most"):
            store.write_documents({"about": "é" * 40_000})

    def test_own_ones_are_not_seen(self, store: MilvusStore, rows: MilvusRows) -> None:
        rows.replace(["a"], table("a", 1))
        assert store.documents() == {}


class TestRows:
    def test_come_back_as_they_were(self, store: MilvusStore, rows: MilvusRows) -> None:
        metadata = {
            'é "q"': "\\x",
            "list": [1, None],
            "none": None,
            "big": 2**70,
            "huge": 10**400,
            "x": 0.1,
        }
        both = pa.concat_tables(
            [table("/é/'\"\\ %", 3, metadata=metadata), table("/b", 1, modality="hearing")]
        )
        rows.replace(["/é/'\"\\ %", "/b", "/new"], both)
        assert everything(rows).equals(both.sort_by([("id", "ascending")]))
        assert rows.count() == 4
        assert rows.modalities() == {"hearing": 1, "sight": 3}
        found = rows.find("path", ["/é/'\"\\ %", "/missing"], ["segment", "vector"])
        assert found.sort_by("segment").column("segment").to_pylist() == [0, 1, 2]
        assert rows.find("content", ["c1"], ["id"]).num_rows == 0
        assert store.rows("rows", DIM).version == rows.version

    def test_rows_in_no_place_of_others_are_added(self, rows: MilvusRows) -> None:
        rows.replace(["a"], table("a", 1))
        rows.replace([], table("b", 2))
        assert everything(rows).column("id").to_pylist() == ["a:0-0", "b:0-0", "b:0-1"]

    def test_replace_and_remove(self, rows: MilvusRows) -> None:
        versions = [rows.version]
        rows.replace(["a", "b"], pa.concat_tables([table("a", 3), table("b", 2)]))
        versions.append(rows.version)
        rows.replace(["a"], table("a", 2, seed=1))
        versions.append(rows.version)
        assert everything(rows).column("id").to_pylist() == ["a:1-0", "a:1-1", "b:0-0", "b:0-1"]
        rows.remove(["a:1-0", "b:0-1", "gone"])
        versions.append(rows.version)
        assert everything(rows).column("id").to_pylist() == ["a:1-1", "b:0-0"]
        rows.replace(["a", "b"], table("a", 0))
        versions.append(rows.version)
        assert everything(rows).num_rows == rows.count() == 0
        assert rows.modalities() == {}
        assert len(set(versions)) == 5
        rows.settle()
        assert stored(rows) == 0

    def test_many_paths_are_changed_in_parts(self, rows: MilvusRows) -> None:
        paths = [f"/{n}/" + "é" * 200 for n in range(600)]
        made = pa.concat_tables([table(path, 1) for path in paths])
        rows.replace(paths, made)
        rows.replace(paths, made.slice(0, 500))
        rows.settle()
        assert everything(rows).num_rows == stored(rows) == 500
        assert rows.find("path", paths, ["id"]).num_rows == 500

    def test_too_much_metadata(self, rows: MilvusRows) -> None:
        with pytest.raises(OmniAlignError, match="metadata of 'a' have 70012 bytes; Milvus keeps"):
            rows.replace(["a"], table("a", 1, metadata={"note": "x" * 70_000}))
        assert everything(rows).num_rows == 0

    def test_nearest_are_exact(self, rows: MilvusRows) -> None:
        made = pa.concat_tables(
            [table(f"p{n}", 5, modality=["sight", "hearing"][n % 2]) for n in range(40)]
        )
        rows.replace([f"p{n}" for n in range(40)], made)
        rng = np.random.default_rng(0)
        queries = np.stack([unit(rng) for _ in range(3)])
        cosines = queries @ vectors_of(made).T
        found = rows.nearest(queries, 7, ["hearing", "sight"])
        for q in range(3):
            for name in ("hearing", "sight"):
                places = np.flatnonzero(np.array(made.column("modality")) == name)
                best = places[np.argsort(-cosines[q, places])[:7]]
                neighbours = found[q][name]
                assert neighbours.rows.column("id").to_pylist() == [
                    made.column("id")[int(place)].as_py() for place in best
                ]
                np.testing.assert_allclose(neighbours.cosines, cosines[q, best], atol=1e-6)
                assert neighbours.rows.schema == made.drop(["vector"]).schema

    def test_more_hits_than_milvus_gives(self, rows: MilvusRows) -> None:
        with pytest.raises(OmniAlignError, match="20000 hits were asked for; Milvus gives at most"):
            rows.nearest(np.ones((1, DIM), np.float32), 20_000, ["sight"])

    def test_metadata_columns(self, rows: MilvusRows) -> None:
        first = {"label": "dog", "year": 1, "checked": True, "box": [1], "path": "/x", "odd": 1}
        rows.replace(["a"], table("a", 1, metadata=first))
        rows.replace(["b"], table("b", 1, metadata={"label": None, "year": 1.5, "odd": "one"}))
        assert rows.metadata_columns() == {
            "label": "string",
            "year": "number",
            "checked": "boolean",
            "odd": "number/string",
        }


def test_filters_mean_the_same_as_in_a_mask(rows: MilvusRows) -> None:
    rng = random.Random(1)
    kept = random_rows(rng, 60)
    for n, row in enumerate(kept):
        row["path"] = f"{row['path']}{n}"
    metadata = [{k: v for k, v in row.items() if k not in ROW_COLUMNS} for row in kept]
    made = [
        table(row["path"], 1, metadata=own, start_seconds=row["start_seconds"])
        for row, own in zip(kept, metadata, strict=True)
    ]
    rows.replace([row["path"] for row in kept], pa.concat_tables(made))
    assert {**ROW_COLUMNS, **rows.metadata_columns()}.items() >= COLUMNS.items()
    matched = 0
    for _ in range(60):
        # Milvus Lite, unlike Milvus, knows no backslash in patterns over metadata
        text, tree = random_filter(rng, depth=3, escapes=False)
        expected = [f"{path_id(row['path'])}:0-0" for row in kept if is_true(tree, row)]
        found = rows.matching(Where.parse(text, COLUMNS))
        assert sorted(found) == sorted(expected), text
        matched += len(found)
    assert 0.1 < matched / (60 * 60) < 0.9


class KilledError(Exception):
    pass


def kill_at(milvus: MilvusConnection, number: int, after: bool) -> Callable[[], bool]:
    """Lets the writer die at its n-th write, before or after it; gives whether it came to that."""
    real, calls = milvus._client, 0

    class Mortal:
        def __getattr__(self, name: str) -> Any:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal calls
                if name in ("insert", "upsert", "delete"):
                    calls += 1
                if calls < number:
                    return getattr(real, name)(*args, **options)
                if after and calls == number:
                    getattr(real, name)(*args, **options)
                calls = number + 1
                raise KilledError

            return call

    milvus._client = Mortal()  # pyright: ignore
    return lambda: calls > number


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_writer_that_dies_leaves_the_former_rows_or_the_new(uri: str, after: bool) -> None:
    seen: set[str] = set()
    for number in range(1, 20):
        rows = MilvusStore(uri).rows(f"rows{number}", DIM)
        old = pa.concat_tables([table("a", 3), table("b", 1)])
        new = pa.concat_tables([table("a", 2, seed=1), table("b", 2, seed=1)])
        rows.replace(["a", "b"], old)
        died = kill_at(rows._milvus, number, after)
        with suppress(KilledError):
            rows.replace(["a", "b"], new)
        reader = MilvusStore(uri).rows(f"rows{number}", DIM)
        found = everything(reader)
        assert found.equals(old) or found.equals(new)
        assert reader.count() == found.num_rows
        assert sum(reader.modalities().values()) == found.num_rows
        hits = reader.nearest(vectors_of(old)[:1], 9, ["sight"])[0]["sight"].rows
        assert sorted(hits.column("id").to_pylist()) == found.column("id").to_pylist()
        seen.add("old" if found.equals(old) else "new")
        reader.replace(["c"], table("c", 1))
        reader.settle()
        assert stored(reader) == reader.count() == found.num_rows + 1
        if not died():
            break
    assert seen == {"old", "new"}
    assert number > 4


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.index.test_milvus import MilvusStore, table, DIM, pa
rows = MilvusStore(sys.argv[1]).rows("rows", DIM)
seed = 0
while True:
    seed += 1
    made = pa.concat_tables([table(path, 1 + seed % 4, seed=seed) for path in ("a", "b")])
    rows.replace(["a", "b"], made)
    print(seed, flush=True)
"""


def versions(rows: MilvusRows) -> list[str]:
    """The versions of files that are there; each whole."""
    ids = sorted(rows.find("path", ["a", "b"], ["id"]).column("id").to_pylist())
    seeds = {row_id.partition("-")[0].partition(":")[2] for row_id in ids}
    for seed in seeds:
        expected = [f"{path}:{seed}-{n}" for path in ("a", "b") for n in range(1 + int(seed) % 4)]
        assert ids == sorted(expected)
    return sorted(seeds)


@pytest.mark.slow
def test_a_process_is_killed_while_it_writes(uri: str, rows: MilvusRows) -> None:
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", WRITER, uri, root]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout is not None
            assert all(writer.stdout.readline() for _ in range(3))
            for _ in range(20):
                assert len(versions(rows)) == 1
        finally:
            writer.kill()
    assert len(versions(rows)) == 1
    rows.replace(["a", "b"], table("c", 0))
    rows.settle()
    assert stored(rows) == 0


@pytest.mark.slow
def test_rows_and_documents_outlive_the_server(tmp_path: Path) -> None:
    made = table("a", 2, metadata={"label": "dog"})
    with milvus_lite(tmp_path / "data") as address:
        store = MilvusStore(f"milvus://{address}/pets")
        store.write_documents({"about": "kept"})
        store.rows("rows", DIM).replace(["a"], made)
    with milvus_lite(tmp_path / "data") as address:
        store = MilvusStore(f"milvus://{address}/pets")
        assert store.documents() == {"about": "kept"}
        assert everything(store.rows("rows", DIM)).equals(made)
        store.drop("rows")
        assert store.rows("rows", DIM).count() == 0
        assert store.rows("rows", DIM).metadata_columns() == {}
