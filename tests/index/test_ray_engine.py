"""The same library, filled over a cluster: the same rows, also when a node is killed meanwhile."""

import json
import sys
import warnings
import wave
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from omnialign.building import build
from omnialign.errors import OmniAlignError
from omnialign.index import Index
from omnialign.index.adding import Adder, AddReport
from omnialign.index.engines import collected
from omnialign.index.ray_session import check_nodes, import_ray
from omnialign.index.rows import WITHOUT_VECTORS
from omnialign.recipe import parse_recipe
from tests.index.conftest import table

if not (find_spec("lance") and find_spec("ray")):
    pytest.skip("ray and pylance are not installed", allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

from omnialign.index import ray_engine, ray_tasks  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, sounds and words; weights are random, sounds have windows of two seconds."""
    sources = {"name": "scenes", "modalities": ["image", "audio"], "num_scenes": 4}
    recipe = {
        "space": {"dim": 16},
        "data": {"scenes": {"source": sources}},
        "pairs": [{"modalities": [name, "text"], "train": "scenes"} for name in ("image", "audio")],
        "towers": {
            "image": {"encoder": {"name": "conv", "width": 32, "channels": [8, 16, 16, 32]}},
            "audio": {"encoder": {"name": "conv", "clip_seconds": 2.0}},
        },
        "train": {"num_steps": 1, "batch_size": 4, "trackers": []},
    }
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    build(parse_recipe(recipe)).save(folder)
    return folder


def draw(file: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    Image.fromarray(noise).resize((48, 48)).save(file)


def sound(file: Path, seconds: float, seed: int = 0) -> None:
    noise = np.random.default_rng(seed).integers(-9000, 9000, int(16000 * seconds), "<i2")
    with wave.open(str(file), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16000)
        out.writeframes(noise.tobytes())


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Six pictures, one of which cannot be read, and a sound of three windows."""
    folder = tmp_path / "media"
    folder.mkdir()
    for i in range(5):
        draw(folder / f"{i}.png", i)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    sound(folder / "long.wav", 5.0)
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "1.png", "label": "one"}))
    return folder


def everything(index: Index) -> list[dict[str, Any]]:
    """All rows without their vectors, by id."""
    batches = index.rows.read(WITHOUT_VECTORS)
    rows = [row for batch in batches for row in batch.to_pylist()]
    return sorted(rows, key=lambda row: row["id"])


def assert_same(index: Index, other: Index) -> None:
    """The same rows, each once; vectors to the rounding of float32."""
    assert everything(index) == everything(other)
    one, two = table(index), table(other)
    for row_id, vector in one.items():
        np.testing.assert_allclose(vector, two[row_id], atol=1e-6)


@pytest.fixture
def filled(model: Path, media: Path, tmp_path: Path) -> Index:
    """What the local engine makes of it."""
    index = Index.create(tmp_path / "local", model)
    index.add(media)
    return index


class Here:
    """Where Ray would keep objects: in this process."""

    def put(self, found: Any) -> Any:
        return found

    get = put


@pytest.mark.slow
class TestWhatNodesDo:
    """The tasks of a cluster, one after the other, and what becomes of what they give."""

    @pytest.fixture(autouse=True)
    def _here(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray_tasks, "_fetched", lambda job: job)
        monkeypatch.setattr(ray_engine, "FILES_AT_ONCE", 3)

    def added(self, index: Index, folder: Path, arrive: Any) -> AddReport:
        """As `Cluster.add` does it; `arrive` decides which tables reach the writer, and the end."""
        cluster = ray_engine.Cluster(index.rows, index.model, None)
        fragments, space = cluster._fragments, index.space
        adder = Adder(index._store, index.rows, index.dim, cluster.replace)
        fresh = adder.to_read(collected(index._store, index.model, [folder], None, {}))
        found = ray_engine._Found(Here(), fresh)
        job = ray_tasks.Job(
            {name: space.tower(name).pipeline for name in space.modalities},
            adder.contents,
            space.dim,
            fragments.uri,
            fragments.storage_version,
        )
        encode = ray_tasks.Encoder(index.model.record, index.model.source)
        tables = [encode(part) for block in found.blocks for part in ray_tasks.read(block, job)]
        for part in arrive(tables):
            found.take(ray_tasks.write_rows(part, job), fragments)
        cluster._settle(found, adder, space, 64)
        adder.commit()
        fragments.commit()
        fragments.tidy()
        return adder.report

    @pytest.mark.parametrize(
        "arrive",
        [
            lambda tables: [part.slice(i, 1) for part in tables for i in range(len(part))][::-1],
            lambda tables: tables[1:],
            lambda tables: [*tables, tables[0]],
            lambda tables: [part.slice(i, 1) for part in tables for i in range(len(part))][:-1],
        ],
        ids=["out of order", "some lost", "some twice", "a sound cut"],
    )
    def test_every_file_has_all_of_its_rows_once(
        self, filled: Index, model: Path, media: Path, tmp_path: Path, arrive: Any
    ) -> None:
        index = Index.create(tmp_path / "ray", model)
        report = self.added(index, media, arrive)
        assert (report.added, report.rows) == (6, 8)
        assert report.set_aside.keys() == filled.set_aside.keys() == index.set_aside.keys()
        assert_same(index, filled)
        files = Path(index.rows.dataset().uri) / "data"
        assert len(index) == 8
        assert len(list(files.iterdir())) == len(index.rows.dataset().get_fragments())

    def test_what_a_node_does_not_see(self, model: Path, media: Path, tmp_path: Path) -> None:
        index = Index.create(tmp_path / "ray", model)
        job = ray_tasks.Job({}, Adder(index._store, index.rows, 16).contents, 16, "", "")
        row = {"number": 0, "path": "/elsewhere/a.png", "modality": "image", "signature": 1}
        (found,) = ray_tasks._read_one(row, job)
        assert "cannot read '/elsewhere/a.png': No such file" in found["problem"]
        assert "where every node reaches them under the same path" in found["problem"]


@pytest.fixture(scope="module")
def machine() -> Iterator[Any]:
    """Ray on this machine, for several tests: it takes long to start."""
    ray = import_ray()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.mark.timeout(900)
@pytest.mark.slow
class TestOneMachine:
    def test_as_the_local_engine(
        self, machine: Any, filled: Index, model: Path, media: Path, tmp_path: Path
    ) -> None:
        index = Index.create(tmp_path / "ray", model)
        before = int(index.version)
        told: list[tuple[int, int]] = []
        report = index.add(media, engine="ray", progress=lambda *done: told.append(done))
        assert (report.added, report.rows) == (6, 8)
        assert report.set_aside == filled.set_aside == index.set_aside
        assert list(report.set_aside) == [str(media / "broken.png")]
        assert told[-1] == (7, 7)
        assert int(index.version) > before
        assert_same(index, filled)
        hit = index.search(media / "1.png", 1, modality="image")[0]
        assert (hit.path, hit.metadata) == (str(media / "1.png"), {"label": "one"})
        assert machine.is_initialized()

        (media / "0.png").rename(media / "moved.png")
        (media / "2.png").unlink()
        draw(media / "3.png", 33)
        draw(media / "broken.png", 44)
        sound(media / "long.wav", 3.0, seed=1)
        for library in (index, filled):
            engine = "ray" if library is index else "local"
            report = library.add(media, engine=engine, prune=True)
            assert (report.added, report.changed, report.moved) == (1, 2, 1)
            assert (report.unchanged, len(report.gone)) == (2, 1)
            assert library.set_aside == {}
        assert_same(index, filled)
        version = index.version
        assert index.add(media, engine="ray").unchanged == 6
        assert index.version == version

    def test_who_ends_it_before_the_commit(
        self, machine: Any, model: Path, media: Path, tmp_path: Path
    ) -> None:
        index = Index.create(tmp_path / "ray", model)
        version = index.version

        def end(done: int, total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index.add(media, engine="ray", progress=end)
        assert (len(index), index.version, index.set_aside) == (0, version, {})
        assert not list(Path(index.uri).glob("rows_*.lance/data/*"))

    def test_a_node_that_does_not_see_the_library(self, machine: Any) -> None:
        check_nodes(machine, ["/"])
        with pytest.raises(OmniAlignError, match="does not see /nowhere: files, model and library"):
            check_nodes(machine, ["/", "/nowhere"])


def test_without_ray(filled: Index, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(OmniAlignError, match=r"wants ray, .* pip install 'omnialign\[ray\]'"):
        filled.add(media, engine="ray")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_node_that_dies_halfway(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost and nothing is there twice when a node is killed with all its processes."""
    ray = import_ray()
    from ray.cluster_utils import Cluster

    folder = tmp_path / "media"
    folder.mkdir()
    for i in range(300):
        draw(folder / f"{i}.png", i)
    for i in range(8):
        sound(folder / f"{i}.wav", 7.0, seed=i)
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    local = Index.create(tmp_path / "local", model)
    local.add(folder)
    monkeypatch.setattr("omnialign.index.ray_engine.FILES_AT_ONCE", 8)
    monkeypatch.setattr("omnialign.index.ray_engine.ROWS_AT_ONCE", 32)
    warnings.simplefilter("ignore")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    node = cluster.add_node(num_cpus=1)
    killed: list[str] = []

    def kill(done: int, total: int) -> None:
        assert total == 309
        if killed or not 32 <= done < 200:
            return
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        family = [*raylet.children(recursive=True), raylet]
        killed.extend(" ".join(process.cmdline()) for process in family)
        for process in family:
            process.kill()

    try:
        index = Index.create(tmp_path / "ray", model)
        report = index.add(
            folder, engine="ray", ray_address=cluster.address, batch_size=16, progress=kill
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert any("ray::" in command for command in killed), killed
    assert (report.added, report.rows, len(report.set_aside)) == (308, 300 + 8 * 4, 1)
    assert len(index) == 332
    assert_same(index, local)
    assert index.verify(sample=4).problems == []
