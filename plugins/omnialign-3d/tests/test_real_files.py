"""Real models, where the shared data are at hand."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omnialign_3d import PointClouds
from omnialign_3d.augmentations import Rotation
from omnialign_3d.cameras import arranged
from omnialign_3d.rendering import render
from PIL import Image

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="shared/data is not here")
MODALITY = PointClouds()


@needs_data
@pytest.mark.parametrize(("name", "has_colors"), [("ldraw_parts", False), ("kenney_models", True)])
def test_models(name: str, has_colors: bool) -> None:
    for path in sorted((DATA / name / "models").iterdir())[:12]:
        cloud = MODALITY.read(path)
        assert len(cloud) == 4096
        assert cloud.points.isfinite().all()
        assert (cloud.colors is not None) == has_colors
        assert cloud.up == ("y" if name == "kenney_models" else None)
        assert cloud.surface is not None
        assert cloud.normals is not None
        torch.testing.assert_close(cloud.normals.norm(dim=-1), torch.ones(4096))


@needs_data
def test_views_of_parts_differ_and_those_of_a_turned_part_stay_near() -> None:
    models = sorted((DATA / "ldraw_parts" / "models").iterdir())[:300:50]
    clouds = [MODALITY.read(path) for path in models]
    ring = arranged("ring", 6)
    pictures = torch.stack([render(cloud, ring, 64).float() for cloud in clouds])
    turn = ring[1].T @ ring[0]  # what camera 0 saw, camera 1 sees
    for index, cloud in enumerate(clouds):
        turned = render(cloud.turn(turn), ring, 64).float()
        assert (turned - pictures[index].roll(1, 0)).abs().mean() < 1, "a step of the ring"
        little = Rotation(max_degrees=5)(cloud, torch.Generator().manual_seed(index))
        near = (render(little, ring, 64).float() - pictures[index]).abs().mean()
        others = (pictures - pictures[index]).abs().mean((1, 2, 3, 4))
        others[index] = torch.inf
        assert near < others.min() / 2


def test_preview_is_a_picture_with_something_on_it() -> None:
    for sample in MODALITY.example_samples(3):
        image = Image.open(io.BytesIO(MODALITY.preview(sample).data)).convert("L")
        assert image.size == (640, 320)
        for half in (image.crop((0, 0, 320, 320)), image.crop((320, 0, 640, 320))):
            covered = sum(half.histogram()[:230]) / 320**2
            assert 0.1 < covered < 0.9


def test_the_main_module_needs_neither_torch_nor_trimesh() -> None:
    code = (
        "import sys, omnialign_3d; m = omnialign_3d.PointClouds(); m.claim(b'ply');"
        "heavy = {'torch', 'trimesh', 'scipy', 'PIL'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
