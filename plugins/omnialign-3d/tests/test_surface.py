"""Triangles follow what is done to the points of their cloud."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from omnialign_3d import PointCloud, PointClouds
from omnialign_3d.augmentations import Dropout, Flip, Jitter, Rotation, Scale
from omnialign_3d.cloud import direction, upright
from omnialign_3d.surface import Surface

from omnialign import ReadError
from omnialign.contract import Augmentation

SAMPLE = PointClouds().example_samples(1)[0]


def triangles_of(cloud: PointCloud) -> torch.Tensor:
    assert cloud.surface is not None
    return cloud.surface.triangles


def corners_as_points() -> PointCloud:
    """A cloud whose points are the corners of its triangles, so that each tells of the other."""
    return replace(SAMPLE, points=triangles_of(SAMPLE).flatten(0, 1), colors=None, normals=None)


@pytest.mark.parametrize(
    "augment",
    [Rotation(), Rotation(axis="any"), Rotation(up="z"), Scale(), Scale(per_axis=True)],
    ids=lambda a: repr(a),
)
def test_triangles_move_with_the_points(augment: Augmentation[PointCloud]) -> None:
    changed = augment(corners_as_points(), torch.Generator().manual_seed(1))
    assert not changed.points.equal(corners_as_points().points)
    torch.testing.assert_close(triangles_of(changed).flatten(0, 1), changed.points)


def test_a_mirrored_surface_keeps_its_outside_and_its_colors() -> None:
    attributes = torch.rand(len(triangles_of(SAMPLE)), 3, 6)
    cloud = replace(SAMPLE, surface=Surface(triangles_of(SAMPLE), attributes))
    flipped = Flip(probability=1)(cloud, torch.Generator())
    edges = triangles_of(flipped).diff(dim=1)
    outward = torch.linalg.cross(edges[:, 0], edges[:, 1])
    assert ((outward * triangles_of(flipped).mean(1)).sum(-1) > 0).all()
    assert flipped.surface is not None
    assert flipped.surface.attributes is not None
    assert flipped.surface.attributes.equal(attributes.flip(1))


def test_jitter_and_dropout_leave_triangles_alone() -> None:
    for augment in (Jitter(), Dropout()):
        assert augment(SAMPLE, torch.Generator().manual_seed(0)).surface is SAMPLE.surface


def test_colors_are_interpolated_and_textures_repeat() -> None:
    texture = torch.tensor([[[255, 0, 0], [0, 0, 255]]], dtype=torch.uint8)
    surface = Surface(torch.eye(3)[None], textures=(texture,))
    plain = [0.25, 0.5, 1.0, 0.0, 0.0, -1.0]
    left, right, around = ([1.0, 1.0, 1.0, u, 0.5, 0.0] for u in (0.1, 0.9, -0.1))
    colors = surface.colors(torch.tensor([plain, left, right, around]))
    assert colors.tolist() == [[0.25, 0.5, 1], [1, 0, 0], [0, 0, 1], [0, 0, 1]]


class TestUp:
    """An axis that a file states goes before the option, which is for files that state none."""

    lying = PointCloud(torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))

    def test_upright(self) -> None:
        assert upright(self.lying, "z").points[0].tolist() == [0, 1, 0]
        stated = replace(self.lying, up="y")
        assert upright(stated, "z").points.equal(stated.points)
        assert upright(replace(self.lying, up="-z"), "y").points[0].tolist() == [0, -1, 0]
        assert upright(self.lying, "z").up == "y"

    def test_a_rotation_keeps_height(self) -> None:
        rotate = Rotation(up="z")
        for up in (None, "x"):
            turned = rotate(replace(SAMPLE, up=up), torch.Generator().manual_seed(0))
            axis = direction(up or "z")
            torch.testing.assert_close(turned.points @ axis, SAMPLE.points @ axis)

    def test_a_dict_may_state_it(self) -> None:
        cloud = PointClouds().read({"points": [[0, 0, 1]], "up": "-z"})
        assert cloud.up == "-z"
        with pytest.raises(ReadError, match="'up' wants one of x, y"):
            PointClouds().read({"points": [[0, 0, 1]], "up": "w"})
