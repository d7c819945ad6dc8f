from __future__ import annotations

import math

import pytest
import torch
from omnialign_3d import PointCloud, PointClouds
from omnialign_3d.augmentations import Dropout, Flip, Jitter, Rotation, Scale

from omnialign import OmniAlignError

SAMPLE = PointClouds().example_samples(1)[0]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normals_of(cloud: PointCloud) -> torch.Tensor:
    assert cloud.normals is not None
    return cloud.normals


def test_rotation_keeps_height_and_distances() -> None:
    turned = Rotation()(SAMPLE, seeded())
    torch.testing.assert_close(turned.points[:, 1], SAMPLE.points[:, 1])
    torch.testing.assert_close(torch.pdist(turned.points), torch.pdist(SAMPLE.points))
    before = (SAMPLE.points * normals_of(SAMPLE)).sum(-1)
    torch.testing.assert_close((turned.points * normals_of(turned)).sum(-1), before)


def test_rotation_stays_below_its_angle() -> None:
    angles: list[float] = []
    for seed in range(50):
        turned = Rotation(max_degrees=30)(PointCloud(torch.eye(3)), seeded(seed))
        angles.append(math.degrees(math.acos(turned.points[0, 0].clamp(-1, 1).item())))
    assert max(angles) <= 30.001
    assert max(angles) > 20


def test_rotation_about_any_axis_moves_up_and_mirrors_nothing() -> None:
    rotate = Rotation(axis="any")
    turns = [rotate(PointCloud(torch.eye(3)), seeded(seed)).points for seed in range(20)]
    assert min(turn[1, 1].item() for turn in turns) < 0
    for turn in turns:
        assert torch.linalg.det(turn).item() == pytest.approx(1, abs=1e-5)


def test_scale() -> None:
    factor = Scale(2, 3)(SAMPLE, seeded()).points / SAMPLE.points
    assert 2 <= factor.min() <= factor.max() <= 3
    assert factor.std() < 1e-4
    stretched = Scale(0.5, 2, per_axis=True)(SAMPLE, seeded())
    assert (stretched.points / SAMPLE.points)[0].std() > 0.05
    torch.testing.assert_close(normals_of(stretched).norm(dim=-1), torch.ones(len(SAMPLE)))


def test_stretched_normals_stay_upright_on_their_surface() -> None:
    slope = torch.tensor([[1.0, -1.0, 0.0]])  # along the surface
    cloud = PointCloud(slope, normals=torch.tensor([[0.6, 0.6, 0.5]]))
    stretched = Scale(0.5, 2, per_axis=True)(cloud, seeded())
    assert (stretched.points * normals_of(stretched)).sum().abs() < 1e-6


def test_flip() -> None:
    always = Flip(axis="z", probability=1)(SAMPLE, seeded())
    torch.testing.assert_close(always.points, SAMPLE.points * torch.tensor([1.0, 1, -1]))
    assert Flip(probability=0)(SAMPLE, seeded()) is SAMPLE


def test_jitter_is_relative_to_the_radius() -> None:
    for size in (0.001, 1000.0):
        cloud = PointCloud(SAMPLE.points * size)
        moved = (Jitter(0.01)(cloud, seeded()).points - cloud.points) / size
        assert moved.std().item() == pytest.approx(0.01 * 1.7, rel=0.2)
        assert moved.abs().max() < 0.06


def test_dropout_keeps_points_and_what_belongs_to_them() -> None:
    kept = Dropout(0.9)(SAMPLE, seeded())
    assert 60 <= len(kept) < 600
    rows = {tuple(row) for row in torch.cat([SAMPLE.points, normals_of(SAMPLE)], 1).tolist()}
    assert {tuple(row) for row in torch.cat([kept.points, normals_of(kept)], 1).tolist()} <= rows
    assert len(Dropout(0.99)(PointCloud(torch.zeros(1, 3)), seeded())) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rotation(max_degrees=-1), "max_degrees"),
        (lambda: Scale(low=2, high=1), "low"),
        (lambda: Flip(probability=2), "probability"),
        (lambda: Jitter(std=-1), "std"),
        (lambda: Dropout(max_fraction=1), "max_fraction"),
    ],
)
def test_impossible_options(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(OmniAlignError, match=message):
        make()
