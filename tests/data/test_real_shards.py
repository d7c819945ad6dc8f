"""Real files in shards give the samples, and the losses, that they give in their folder."""

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from torch import Tensor

from omnialign.building import build
from omnialign.data.manifest import Manifest
from omnialign.data.packing import pack
from omnialign.data.rows import PairRows
from omnialign.engine import train
from omnialign.recipe import Recipe, Rows, parse_recipe

SETS = [
    ("noto_emoji", "image"),
    ("grocery_photos", "image"),
    ("fsdd", "audio"),
    ("blanket_ambient", "audio"),
    ("weather_icons_animated", "video"),
    ("sample_videos", "video"),
    ("ldraw_parts", "pointcloud"),
    ("kenney_models", "pointcloud"),
    ("uci_har", "timeseries"),
]


def recipe(modality: str, source: dict[str, Any], **settings: Any) -> Recipe:
    return parse_recipe(
        {
            "towers": {"text": {"encoder": "transformer"}},
            "data": {"rows": {"source": source}},
            "pairs": [{"modalities": [modality, "text"], "train": "rows"}],
            "train": {"trackers": [], "precision": "float32", **settings},
        }
    )


def first_rows(folder: Path, num_rows: int, manifest: Path) -> dict[str, Any]:
    """A manifest of a set's first rows, whose paths are absolute."""
    lines = (folder / "metadata.jsonl").read_text("utf-8").splitlines()[:num_rows]
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["file_name"] = str(folder / row["file_name"])
        row.pop("image", None)
    manifest.write_text("\n".join(map(json.dumps, rows)))
    return {"name": "manifest", "path": str(manifest)}


def equal(x: Any, y: Any) -> bool:
    """Whether two samples hold the same, tensor by tensor and bit by bit."""
    if isinstance(x, Tensor):
        return x.equal(y)
    if isinstance(x, list | tuple):
        return len(x) == len(y) and all(map(equal, x, y))
    if is_dataclass(x):
        return all(equal(getattr(x, f.name), getattr(y, f.name)) for f in fields(x))
    return x == y


@pytest.mark.parametrize("format", ["tar", "parquet"])
@pytest.mark.parametrize(("name", "modality"), SETS)
def test_samples(
    real_data: Path, tmp_path: Path, name: str, modality: str, format: Literal["tar", "parquet"]
) -> None:
    files = first_rows(real_data / name, 3, tmp_path / "rows.jsonl")
    pack(Manifest(files["path"]), tmp_path / "out", format=format)
    kind = "webdataset" if format == "tar" else "manifest"
    packed = {"name": kind, "path": str(tmp_path / "out")}
    pipeline = build(recipe(modality, files)).tower(modality).pipeline
    samples: list[list[Any]] = []
    for source in (files, packed):
        rows = PairRows(recipe(modality, source), Rows(data="rows"), [modality, "text"])
        assert len(rows) == 3
        items = [rows.items(i, modality)[0].value for i in range(3)]
        samples.append([pipeline.read(item) for item in items])
    assert equal(*samples)


def test_losses(real_data: Path, tmp_path: Path) -> None:
    files = {"name": "manifest", "path": str(real_data / "coco_captions_cc")}
    pack(Manifest(files["path"]), tmp_path / "shards")
    packed = {"name": "webdataset", "path": str(tmp_path / "shards")}
    losses: list[list[float]] = []
    for name, source in (("files", files), ("packed", packed)):
        settings = {"num_steps": 3, "batch_size": 8, "log_every": 1, "warmup_steps": 1}
        train(recipe("image", source, **settings), tmp_path / name)
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3
