"""A small model of the toys, saved, and folders of signals."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from omnialign.building import build
from omnialign.index import Index
from omnialign.index.rows import vectors_of
from omnialign.recipe import parse_recipe
from omnialign.registry import Registry
from omnialign.testing import toy
from tests.index.milvus_server import milvus_lite


def save_model(folder: Path, seed: int = 0, policy: str = "windows") -> Path:
    table = toy.recipe()
    encoder = {"name": "mlp", "window_seconds": 4.0}
    table["towers"] = {"toy_signal": {"encoder": encoder, "long_input": policy}}
    torch.manual_seed(seed)
    build(parse_recipe(table)).save(folder)
    return folder


@pytest.fixture
def model(toys: Registry, tmp_path: Path) -> Path:
    """Two towers whose weights are random; windows of four seconds."""
    del toys
    return save_model(tmp_path / "model")


@pytest.fixture
def signals(tmp_path: Path) -> Path:
    """Eight signals of different length and slope; the first of three windows."""
    folder = tmp_path / "signals"
    folder.mkdir()
    for i in range(8):
        numbers = 10 if i == 0 else 3
        toy.write_signal(folder / f"{i}.toy", torch.linspace(-1, i + 1, numbers))
    return folder


@pytest.fixture
def index(model: Path, signals: Path, tmp_path: Path) -> Index:
    made = Index.create(tmp_path / "library", model)
    made.add(signals)
    return made


def table(index: Index) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for batch in index.rows.read(["id", "vector"]):
        found |= dict(zip(batch.column("id").to_pylist(), vectors_of(batch), strict=True))
    return found


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The `host:port` of a Milvus Lite server."""
    with milvus_lite(tmp_path_factory.mktemp("milvus") / "data") as address:
        yield address
