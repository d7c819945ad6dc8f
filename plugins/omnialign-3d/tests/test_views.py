"""Axes: n shapes, V views, S pixels of a side, W width."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import trimesh
from omnialign_3d import PointClouds, convert_up
from omnialign_3d.shapes import SHAPES
from omnialign_3d.views import ViewsEncoder
from torch import Tensor

import omnialign
from omnialign import Encoder, OmniAlignError, pad_and_stack
from omnialign.engine import train
from omnialign.recipe import parse_recipe

SAMPLES = PointClouds().example_samples(5)
IMAGE: dict[str, Any] = {"image_size": 32, "width": 16, "channels": [8, 16]}


def small(**options: Any) -> ViewsEncoder:
    torch.manual_seed(0)
    return ViewsEncoder(image_options=IMAGE, **{"num_views": 4, **options}).eval()


@torch.no_grad()
def features(encoder: Encoder, *samples: Any) -> Tensor:
    return encoder(encoder.collate([encoder.preprocess(sample) for sample in samples]))


def test_views_are_pictures_of_the_image_encoders_resolution() -> None:
    encoder = small()
    given = pickle.loads(pickle.dumps(encoder.preprocess))(SAMPLES[0])
    assert [view.shape for view in given["views"]] == [(3, 32, 32)] * 4
    batch = encoder.collate([given, given, given])
    assert batch["image_"].shape == (3, 4, 3, 32, 32)
    assert batch["image_"].dtype == torch.uint8
    assert "FitSquare(image_size=32" in repr(encoder.preprocess), "part of the fingerprint"


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_features_are_pooled_over_the_views(pool: Any) -> None:
    encoder = small(pool=pool)
    batch = encoder.collate([encoder.preprocess(sample) for sample in SAMPLES])
    each = torch.stack([encoder.image(views) for views in batch["image_"]])
    pooled = each.mean(1) if pool == "mean" else each.amax(1)
    torch.testing.assert_close(encoder(batch), pooled)


def test_a_ring_does_not_see_a_turn_by_one_of_its_steps() -> None:
    encoder = small(num_views=4)
    quarter = convert_up(convert_up(convert_up(SAMPLES[0], "y", "z"), "z", "x"), "x", "y")
    assert not quarter.points.equal(SAMPLES[0].points)
    plain, turned = features(encoder, SAMPLES[0], quarter)
    torch.testing.assert_close(turned, plain, atol=1e-2, rtol=1e-2)


def test_size_is_seen_only_where_it_is_wanted() -> None:
    sample = SAMPLES[1]
    assert sample.surface is None
    larger = replace(sample, points=sample.points * 3)
    for use_size in (False, True):
        plain, scaled = features(small(use_size=use_size), sample, larger)
        assert torch.allclose(plain, scaled, atol=1e-3) != use_size


def test_up_is_converted_unless_the_sample_says_it() -> None:
    lying = convert_up(SAMPLES[2], "y", "z")
    y_up, z_up = small(), small(up="z")
    expected = features(y_up, SAMPLES[2])
    torch.testing.assert_close(features(z_up, replace(lying, up=None)), expected)
    torch.testing.assert_close(features(y_up, lying), expected)
    assert not torch.allclose(features(y_up, replace(lying, up=None)), expected, atol=1e-3)


def test_the_blocks_are_those_of_the_image_encoder() -> None:
    encoder = small()
    assert [*encoder.list_blocks()] == [*encoder.image.list_blocks()]


def rows(picture: Tensor) -> Tensor:
    return picture.float().mean(0)[: 3 + int(picture[0, 100, 112] < 255)]


class Padded(Encoder):
    """An image encoder that prepares with a function, and whose batch is a dict with a mask."""

    width = 8
    preprocess = staticmethod(rows)
    collate = staticmethod(pad_and_stack)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        mean = (batch["values"] * batch["mask"][..., None]).sum((1, 2))
        return mean[:, None].expand(-1, 8)


def test_an_image_encoder_may_take_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnialign_3d.views.build_encoder", lambda *_: Padded())
    encoder = ViewsEncoder(num_views=3)
    batch = encoder.collate([encoder.preprocess(sample) for sample in SAMPLES[:2]])
    assert batch["image_values"].shape == (2, 3, 4, 224)
    assert features(encoder, *SAMPLES[:2]).shape == (2, 8)
    assert "test_views.rows" in repr(encoder.preprocess)
    assert " at 0x" not in repr(encoder.preprocess)


def test_a_pretrained_image_encoder_is_rebuilt_without_its_weights_file(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), weights)
    image = {"backbone": "squeezenet1_1", "weights": str(weights), "image_size": 32}
    options: dict[str, Any] = {"image_encoder": "torchvision", "image_options": image}
    encoder = ViewsEncoder(**options, num_views=2).eval()
    folder = tmp_path / "files"
    folder.mkdir()
    encoder.save_files(folder)
    weights.unlink()
    with pytest.raises(OmniAlignError, match=r"weights\.pt"):
        ViewsEncoder(**options)
    rebuilt = ViewsEncoder.from_files(folder, **options, num_views=2).eval()
    rebuilt.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(features(rebuilt, *SAMPLES[:2]), features(encoder, *SAMPLES[:2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_views": 0}, "num_views wants 1"),
        ({"image_encoder": "konv"}, "no encoder 'konv'"),
        ({"image_options": {"size": 3}}, "unknown key 'size'"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OmniAlignError, match=message):
        ViewsEncoder(**options)


def test_a_run_learns_is_saved_and_loaded(tmp_path: Path) -> None:
    rows = tmp_path / "shapes"
    rows.mkdir()
    lines: list[str] = []
    for index, (name, triangles) in enumerate(SHAPES.items()):
        mesh = trimesh.Trimesh(**trimesh.triangles.to_kwargs(triangles().numpy()))
        mesh.export(rows / f"{index}.ply")
        lines.append(json.dumps({"file_name": f"{index}.ply", "text": f"a {name}"}) + "\n")
    (rows / "metadata.jsonl").write_text("".join(lines))
    encoder = {"name": "views", "image_options": IMAGE, "num_views": 2}
    recipe = parse_recipe(
        {
            "space": {"dim": 16},
            "towers": {
                "pointcloud": {"encoder": encoder, "augmentations": ["rotation"]},
            },
            "data": {"shapes": {"source": {"name": "manifest", "path": str(rows)}}},
            "pairs": [{"modalities": ["pointcloud", "text"], "train": "shapes"}],
            "train": {
                "num_steps": 40,
                "batch_size": 5,
                "learning_rate": 1e-2,
                "trackers": [],
            },
        }
    )
    space = train(recipe, tmp_path / "run")
    loaded = omnialign.load(tmp_path / "run", "cpu")
    files = [rows / f"{index}.ply" for index in range(5)]
    vectors = space.embed(files)
    torch.testing.assert_close(loaded.embed(files), vectors)
    assert loaded.fingerprint() == space.fingerprint()
    words = loaded.embed([f"a {name}" for name in SHAPES], "text")
    assert (vectors @ words.T).argmax(1).tolist() == [0, 1, 2, 3, 4]
