"""A library of scenes and a model that knows them by heart, made in seconds.

The encoders are as they were initialised; a projection is solved so that all that shows one scene,
its captions too, lies in one direction. Such a model answers for these files and no others.

Axes: n items, w width of features, D dim.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import torch
import uvicorn
from omnialign_scenes import write_folder

from omnialign.building import build
from omnialign.index import Index
from omnialign.recipe import parse_recipe
from omnialign.segments import evaluating
from omnialign.serve.app import create_app
from omnialign.serve.limits import Limits
from omnialign.space import SharedSpace

NUM_SCENES = 12
IN_TURN = (8, 9)
"""The scenes whose sounds `files/in-turn.wav` has, one after the other."""
KINDS = ("image", "audio", "video", "pointcloud")
TOWERS = {
    "text": {"encoder": {"name": "ngrams"}},
    "image": {"encoder": {"name": "conv", "image_size": 48, "channels": [16, 32, 64]}},
    "audio": {
        "encoder": {
            "name": "conv",
            "sample_rate_hz": 8000,
            "clip_seconds": 1.5,
            "num_mels": 48,
            "hop_seconds": 0.016,
            "width": 128,
        }
    },
    "video": {
        "encoder": {
            "name": "frames",
            "num_frames": 6,
            "image_size": 32,
            "clip_seconds": 1.5,
            "channels": [16, 32],
            "width": 128,
        }
    },
    "pointcloud": {"encoder": {"name": "pointnet", "num_points": 256, "width": 128}},
}


@dataclass(frozen=True)
class Library:
    """A folder with `files`, `model` and `index`, and what `metadata.jsonl` says."""

    folder: Path
    rows: list[dict[str, Any]]

    def open(self) -> Index:
        return Index.open(self.folder / "index")

    @property
    def num_files(self) -> int:
        return len(self.rows) + 1

    @property
    def num_rows(self) -> int:
        return self.num_files + 1

    def row(self, kind: str, scene: int) -> dict[str, Any]:
        return next(r for r in self.rows if (r["modality"], r["scene"]) == (kind, scene))

    def file(self, kind: str, scene: int) -> Path:
        return self.folder / "files" / self.row(kind, scene)["file_name"]


def make_library(folder: Path) -> Library:
    torch.manual_seed(0)
    files = folder / "files"
    write_folder(files, KINDS, NUM_SCENES, seed=3)
    rows = [json.loads(line) for line in (files / "metadata.jsonl").read_text().splitlines()]
    space = _space()
    for kind in KINDS:
        own = [row for row in rows if row["modality"] == kind]
        _fit(space, kind, [files / row["file_name"] for row in own], [row["scene"] for row in own])
    captions = {words: row["scene"] for row in rows for words in row["text"]}
    _fit(space, "text", list(captions), list(captions.values()))
    space.save(folder / "model")
    library = Library(folder, rows)
    sounds = [soundfile.read(library.file("audio", scene), dtype="int16") for scene in IN_TURN]
    joined = np.concatenate([values for values, _ in sounds])
    soundfile.write(files / "in-turn.wav", joined, sounds[0][1])
    report = Index.create(folder / "index", folder / "model").add([files])
    assert (report.added, report.rows) == (library.num_files, library.num_rows), report
    return library


def _space() -> SharedSpace:
    source = {"source": {"name": "scenes", "num_scenes": 1}}
    pairs = [{"modalities": [kind, "text"], "train": "none"} for kind in KINDS]
    recipe = {"space": {"dim": 64}, "towers": TOWERS, "data": {"none": source}, "pairs": pairs}
    return build(parse_recipe(recipe))


@torch.no_grad()
def _fit(space: SharedSpace, kind: str, items: Sequence[Any], scenes: Sequence[int]) -> None:
    """Solves the projection of a tower: ridge regression to one direction a scene."""
    tower = space.tower(kind)
    with evaluating(space):
        pipeline = tower.pipeline
        inputs = [pipeline.inputs(pipeline.read(item))[0] for item in items]
        features = tower.features(pipeline.collate(inputs)).double()
    wanted = torch.eye(space.dim, dtype=torch.float64)[torch.tensor(scenes)]
    products = features @ features.T
    ridge = 1e-3 * products.diagonal().mean() * torch.eye(len(products), dtype=torch.float64)
    solved = features.T @ torch.linalg.solve(products + ridge, wanted)
    tower.projection.weight.copy_(solved.T)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return make_library(tmp_path_factory.mktemp("library"))


@contextmanager
def running(index: Index, limits: Limits | None = None, token: str | None = None) -> Iterator[str]:
    """Serves at a free port of this machine; gives the address."""
    app = create_app(index, token=token, limits=limits)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="critical", access_log=False, timeout_keep_alive=600)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended before it began"
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture(scope="session")
def address(library: Library) -> Iterator[str]:
    """Of a service over the library, with the limits that are usual."""
    with running(library.open()) as found:
        yield found


@pytest.fixture
def client(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=120) as found:
        yield found


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """`running`, for a service of one's own."""
    return running
