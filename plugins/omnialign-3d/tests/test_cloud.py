from __future__ import annotations

import itertools
from typing import get_args

import pytest
import torch
from omnialign_3d import Axis, PointCloud, convert_up

AXES = get_args(Axis)


def direction(axis: str) -> torch.Tensor:
    sign = -1.0 if axis.startswith("-") else 1.0
    return sign * torch.eye(3)["xyz".index(axis[-1])]


def test_z_up_becomes_y_up() -> None:
    cloud = PointCloud(torch.tensor([[1.0, 2.0, 3.0]]), normals=torch.tensor([[0.0, 0.0, 1.0]]))
    turned = convert_up(cloud, "z")
    assert turned.points.tolist() == [[1.0, 3.0, -2.0]]
    assert turned.normals is not None
    assert turned.normals.tolist() == [[0.0, 1.0, 0.0]]


@pytest.mark.parametrize(("source", "target"), [*itertools.product(AXES, AXES)])
def test_up_goes_up_and_nothing_is_mirrored(source: Axis, target: Axis) -> None:
    turned = convert_up(PointCloud(torch.eye(3)), source, target).points
    assert torch.equal(direction(source) @ turned, direction(target))
    assert torch.linalg.det(turned).item() == pytest.approx(1)
    back = convert_up(PointCloud(turned), target, source).points
    if source[-1] != target[-1] or source == target:
        assert torch.equal(back, torch.eye(3))


def test_take_keeps_what_belongs_together() -> None:
    points = torch.arange(12.0).reshape(4, 3)
    taken = PointCloud(points, colors=points / 12).take(torch.tensor([2, 0]))
    assert taken.points.tolist() == points[[2, 0]].tolist()
    assert taken.colors is not None
    assert torch.equal(taken.colors, taken.points / 12)
    assert taken.normals is None
    assert len(taken) == 2
