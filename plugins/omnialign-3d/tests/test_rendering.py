"""Axes: V views, S pixels of a side."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
from omnialign_3d import PointCloud, PointClouds, intersection, sampling
from omnialign_3d.cameras import Arrangement, arranged, camera
from omnialign_3d.intersection import Renderer
from omnialign_3d.rendering import AMBIENT, MARGIN, render
from omnialign_3d.shapes import ball, box, painted
from omnialign_3d.surface import Surface
from torch import Tensor

from omnialign import OmniAlignError

FRONT = camera(0, 0)[None]
RED, BLUE = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])


def has(renderer: Renderer) -> bool:
    try:
        intersection.check_installed(renderer)
    except OmniAlignError:
        return False
    return True


each = pytest.mark.parametrize(
    "renderer",
    [
        pytest.param(name, marks=pytest.mark.skipif(not has(name), reason=f"{name} is not here"))
        for name in ("embree", "pytorch3d")
    ],
)


def shape(triangles: Tensor, color: Tensor | None = None) -> PointCloud:
    attributes = None if color is None else painted(triangles, color)
    return PointCloud(triangles.flatten(0, 1), surface=Surface(triangles, attributes))


def covered(picture: Tensor) -> Tensor:
    """Where a picture `(3, S, S)` is not white, `(S, S)`."""
    return (picture != 255).any(0)


class TestCameras:
    @pytest.mark.parametrize("arrangement", get_args(Arrangement))
    def test_they_are_rotations_that_look_down(self, arrangement: Arrangement) -> None:
        cameras = arranged(arrangement, 7)
        torch.testing.assert_close(cameras @ cameras.mT, torch.eye(3).expand(7, 3, 3))
        torch.testing.assert_close(torch.linalg.det(cameras), torch.ones(7))
        assert (cameras[:, 2, 1] > 0).all(), "the viewer is above"
        assert (cameras[:, 1, 1] > 0).all(), "up is up in the picture"

    def test_a_ring_goes_round(self) -> None:
        ways = arranged("ring", 4)[:, 2]
        assert ways[:, 1].tolist() == pytest.approx([0.5] * 4)
        torch.testing.assert_close(ways.sum(0)[[0, 2]], torch.zeros(2), atol=1e-6, rtol=0)

    def test_a_dome_covers_the_upper_half_evenly(self) -> None:
        ways = arranged("dome", 64)[:, 2]
        apart = (ways @ ways.T - 2 * torch.eye(64)).amax(1).acos().rad2deg()
        assert 12 < apart.min() <= apart.max() < 22
        assert ways[:, 1].mean().item() == pytest.approx(0.5, abs=0.01)


@each
class TestPictures:
    def test_a_ball_is_a_disc(self, renderer: Renderer) -> None:
        (picture,) = render(shape(ball() * 7 + 100), FRONT, 64, renderer)
        assert picture.dtype == torch.uint8
        assert picture.shape == (3, 64, 64)
        share = covered(picture).float().mean().item()
        assert share == pytest.approx(math.pi / 4 / MARGIN**2, abs=0.03)
        assert covered(picture)[32, 1:-1].all()
        assert picture[:, 10, 40].float().mean() < 128 * 1.01
        above, below = picture[0, 16, 36], picture[0, 48, 28]
        assert above > below, "the light is above"

    def test_what_is_on_the_right_and_above_is_there(self, renderer: Renderer) -> None:
        small = box() / 10
        both = torch.cat([small, small + torch.tensor([1.0, 1.0, 0.0])])
        attributes = torch.cat([painted(small, RED), painted(small, BLUE)])
        cloud = PointCloud(both.flatten(0, 1), surface=Surface(both, attributes))
        (picture,) = render(cloud, FRONT, 32, renderer).float()
        red, blue = (
            covered(picture) & (picture[channel] > picture[other])
            for channel, other in ((0, 2), (2, 0))
        )
        row, column = blue.nonzero().float().mean(0)
        assert row < 12
        assert column > 20
        row, column = red.nonzero().float().mean(0)
        assert row > 20
        assert column < 12

    def test_the_nearer_hides_the_farther(self, renderer: Renderer) -> None:
        near, far = (box() / 2 + torch.tensor([0, 0, z]) for z in (1.0, -1.0))
        attributes = torch.cat([painted(near, RED), painted(far, BLUE)])
        both = torch.cat([near, far])
        cloud = PointCloud(both.flatten(0, 1), surface=Surface(both, attributes))
        front, back = render(cloud, torch.cat([FRONT, camera(180, 0)[None]]), 32, renderer)
        for picture, seen, hidden in ((front, 0, 2), (back, 2, 0)):
            assert picture[seen, 16, 16] > 100
            assert picture[hidden, 16, 16] == 0

    def test_textures_are_seen(self, renderer: Renderer) -> None:
        square = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
        faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
        attributes = torch.zeros(2, 3, 6)
        attributes[..., :3] = 1
        attributes[..., 3:5] = ((square[:, :2] + 1) / 2)[faces]
        texture = torch.zeros(64, 64, 3, dtype=torch.uint8)
        texture[:32, :, 0] = 255  # the upper half is red, the lower blue
        texture[32:, :, 2] = 255
        surface = Surface(square[faces], attributes, (texture,))
        (picture,) = render(PointCloud(square, surface=surface), FRONT, 32, renderer).float()
        assert picture[0, 10, 16] > 100 > picture[2, 10, 16]
        assert picture[2, 22, 16] > 100 > picture[0, 22, 16]

    def test_both_sides_are_lit(self, renderer: Renderer) -> None:
        turned = Surface(box()).inside_out()
        outside = render(shape(box()), arranged("ring", 2), 32, renderer)
        inside = render(PointCloud(torch.eye(3), surface=turned), arranged("ring", 2), 32, renderer)
        assert (outside.float() - inside.float()).abs().mean() < 0.5

    def test_points_are_drawn_where_there_is_no_triangle(self, renderer: Renderer) -> None:
        cloud = PointClouds().read({"points": sampled_ball(), "colors": [[0.0, 0, 1]] * 2000})
        (picture,) = render(cloud, FRONT, 64, renderer)
        (solid,) = render(shape(ball()), FRONT, 64, renderer)
        assert (covered(picture) & covered(solid)).sum() > 0.85 * covered(solid).sum()
        assert covered(picture)[20:44, 20:44].float().mean() > 0.98
        assert not covered(picture)[[0, -1]].any()
        middle = picture[:, 28:36, 28:36].flatten(1).median(1).values
        assert middle.tolist() == [0, 0, 255], "points without normals are lit in full"
        (lit,) = render(replace(cloud, normals=cloud.points), FRONT, 64, renderer).float()
        above, below = (half[2][half[0] == 0].mean() for half in lit.chunk(2, dim=1))
        assert above > below + 20

    def test_odd_shapes(self, renderer: Renderer) -> None:
        single = PointCloud(torch.full((1, 3), 5.0))
        same = PointCloud(torch.zeros(9, 3))
        sliver = shape(torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1e-7, 0]], [[0.0] * 3] * 3]))
        for cloud in (single, same, sliver):
            picture = render(cloud, FRONT, 32, renderer)
            assert picture.shape == (1, 3, 32, 32)
        assert covered(render(single, FRONT, 32, renderer)[0]).any()

    def test_far_and_tiny_shapes_are_framed(self, renderer: Renderer) -> None:
        plain = render(shape(box()), FRONT, 32, renderer)
        for size, place in ((1e-9, 0.0), (1e9, 0.0), (1.0, 100.0)):
            moved = render(shape(box() * size + place), FRONT, 32, renderer)
            assert (moved.float() - plain.float()).abs().mean() < 1

    def test_a_picture_is_the_same_every_time(self, renderer: Renderer) -> None:
        for sample in PointClouds().example_samples(2):
            first, again = (render(sample, arranged("dome", 3), 32, renderer) for _ in range(2))
            assert first.equal(again)


def sampled_ball() -> Tensor:
    return sampling.sample_surface(ball(), 2000)[0]


def test_shade_has_a_floor() -> None:
    (picture,) = render(shape(ball(), RED), FRONT, 64)
    lit = picture[0][covered(picture) & (picture[1] == 0)]
    assert lit.min() >= 255 * AMBIENT - 1
    assert lit.max() > 250


@pytest.mark.skipif(not (has("embree") and has("pytorch3d")), reason="both are not here")
def test_both_renderers_draw_the_same_pictures() -> None:
    for sample in PointClouds().example_samples(5):
        pictures = (
            render(sample, arranged("dome", 3), 48, renderer).float()
            for renderer in ("embree", "pytorch3d")
        )
        left, right = pictures
        assert (left - right).abs().mean() < 1, "they differ along edges at most"


def test_a_missing_renderer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intersection, "find_spec", lambda name: None)
    monkeypatch.setattr(sampling, "pytorch3d", None)
    with pytest.raises(OmniAlignError, match=r"embree or pytorch3d.*omnialign-3d\[views\]"):
        render(shape(box()), FRONT, 8)
    with pytest.raises(OmniAlignError, match=r"want pytorch3d, which"):
        render(shape(box()), FRONT, 8, "pytorch3d")
