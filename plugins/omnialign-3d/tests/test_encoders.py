"""Axes: n clouds, P points, W width."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from omnialign_3d import PointCloud, PointClouds, convert_up
from omnialign_3d.pointnet import PointNetEncoder
from omnialign_3d.preparing import PreparePoints
from omnialign_3d.transformer import PointTransformerEncoder

from omnialign import Encoder, OmniAlignError

SAMPLES = PointClouds().example_samples(6)
SMALL: list[tuple[type[Encoder], dict[str, Any]]] = [
    (PointNetEncoder, {"num_points": 128, "width": 32}),
    (
        PointTransformerEncoder,
        {"num_points": 128, "num_patches": 8, "patch_size": 8, "width": 32, "depth": 1},
    ),
]
each = pytest.mark.parametrize(("kind", "options"), SMALL, ids=["pointnet", "transformer"])


@torch.no_grad()
def features(encoder: Encoder, *samples: PointCloud) -> torch.Tensor:
    return encoder.eval()(encoder.collate([encoder.preprocess(sample) for sample in samples]))


@each
@torch.no_grad()
def test_the_order_of_points_does_not_matter(kind: type[Encoder], options: dict[str, Any]) -> None:
    encoder = kind(**options).eval()
    batch = encoder.collate([encoder.preprocess(sample) for sample in SAMPLES])
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    shuffled = {**batch, "points": batch["points"][:, order]}
    torch.testing.assert_close(encoder(shuffled), encoder(batch), rtol=1e-4, atol=1e-5)


@each
def test_place_does_not_matter_and_size_may(kind: type[Encoder], options: dict[str, Any]) -> None:
    moved = replace(SAMPLES[1], points=SAMPLES[1].points + 3)
    larger = replace(SAMPLES[1], points=SAMPLES[1].points * 2)
    for use_size in (True, False):
        plain, shifted, scaled = features(
            kind(**options, use_size=use_size), SAMPLES[1], moved, larger
        )
        torch.testing.assert_close(shifted, plain, rtol=1e-3, atol=1e-4)
        assert torch.allclose(scaled, plain, rtol=1e-3, atol=1e-4) != use_size


@each
def test_up_is_converted(kind: type[Encoder], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    y_up = kind(**options)
    z_up = kind(**options, up="z")
    z_up.load_state_dict(y_up.state_dict())
    lying = convert_up(SAMPLES[0], "y", "z")
    torch.testing.assert_close(features(z_up, lying), features(y_up, SAMPLES[0]))


@each
def test_tiny_clouds(kind: type[Encoder], options: dict[str, Any]) -> None:
    single = PointCloud(torch.ones(1, 3))
    flat = PointCloud(torch.tensor([[0.0, 0, 0], [1, 0, 0]]))
    assert features(kind(**options), single, flat).isfinite().all()


def test_missing_colors_and_normals_are_neutral() -> None:
    prepare = PreparePoints(600, "y", True, use_colors=True, use_normals=True)
    bare = prepare(PointCloud(SAMPLES[0].points))["points"]
    assert bare.shape == (600, 9)
    assert bare[:, 3:].abs().max() == 0
    grey = replace(SAMPLES[0], colors=torch.full((600, 3), 0.5), normals=None)
    assert prepare(grey)["points"].equal(bare)
    assert prepare(SAMPLES[0])["points"][:, 3:].abs().max() > 0


def test_few_points_are_repeated_and_many_are_chosen_evenly() -> None:
    prepare = PreparePoints(9, "y", False, use_colors=False, use_normals=False)
    points = torch.arange(12.0).reshape(4, 3)
    repeated = prepare(PointCloud(points))["points"]
    assert repeated.unique(dim=0).shape == (4, 3)
    assert repeated[:4].equal(repeated[4:8])
    assert prepare(SAMPLES[0])["points"].shape == (9, 3)


@each
def test_learns_to_tell_shapes(kind: type[Encoder], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    encoder = kind(**options, use_colors=False, use_size=False)
    samples = PointClouds().example_samples(15)
    labels = torch.arange(15) % 5
    head = torch.nn.Linear(encoder.width, 5)
    batch = encoder.collate([encoder.preprocess(sample) for sample in samples])
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(head(encoder(batch)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (head(features(encoder, *samples)).argmax(1) == labels).float().mean()
    assert right > 0.9


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (PointNetEncoder, {"num_points": 0}, "num_points"),
        (PointNetEncoder, {"dropout": 1.0}, "dropout"),
        (PointTransformerEncoder, {"width": 30, "num_heads": 4}, "multiple"),
        (PointTransformerEncoder, {"num_points": 8}, "num_points wants 64"),
        (PointTransformerEncoder, {"depth": 0}, "depth"),
    ],
)
def test_impossible_options(kind: type[Encoder], options: dict[str, Any], message: str) -> None:
    with pytest.raises(OmniAlignError, match=message):
        kind(**options)
