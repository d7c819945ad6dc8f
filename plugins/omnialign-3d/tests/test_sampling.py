"""Axes: B clouds, N points, M queries, K neighbours or samples, F triangles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from omnialign_3d import sampling
from omnialign_3d.sampling import (
    ball_points,
    farthest_points,
    nearest_points,
    sample_surface,
    spread_indices,
    unit_sphere,
)
from omnialign_3d.shapes import ball, box
from torch import Tensor


def cloud(seed: int = 0, num_points: int = 200) -> Tensor:
    return torch.randn(3, num_points, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [1, 2, 3, 10, 600, 4096, 100_003])
def test_spread_indices_visit_all_before_any_again(length: int) -> None:
    chosen = spread_indices(length, 2 * length)
    assert chosen[:length].sort().values.equal(torch.arange(length))
    assert chosen[length:].equal(chosen[:length])


def test_spread_indices_are_spread_evenly() -> None:
    chosen = spread_indices(4096, 512).sort().values
    assert chosen.diff().max() <= 21, "512 of 4096 are 8 apart on the average"


def test_unit_sphere() -> None:
    points, radius = unit_sphere(cloud() * 7 + 3)
    assert points.mean(1).abs().max() < 1e-5
    torch.testing.assert_close(points.norm(dim=-1).amax(1), torch.ones(3))
    assert radius.shape == (3, 1, 1)
    same, zero = unit_sphere(torch.full((5, 3), 2.0))
    assert zero.item() == 0
    assert same.abs().max() == 0


def test_surface_samples_lie_on_the_faces_in_proportion_to_area() -> None:
    triangles = box() * torch.tensor([3.0, 1.0, 1.0])  # the two faces across x have 1/7 of the area
    points, normals, none = sample_surface(triangles, 20_000)
    assert none is None
    distance = (points.abs() / torch.tensor([3.0, 1.0, 1.0])).amax(-1)
    torch.testing.assert_close(distance, torch.ones_like(distance))
    assert (normals[:, 0].abs() > 0.5).float().mean().item() == pytest.approx(1 / 7, abs=0.01)
    assert ((points * normals).sum(-1) > 0).all(), "normals point outside"


def test_surface_samples_are_the_same_every_time_and_interpolate() -> None:
    state = torch.get_rng_state()
    triangles = ball()
    points, _, baked = sample_surface(triangles, 50, attributes=triangles, seed=3)
    again, _, _ = sample_surface(triangles, 50, seed=3)
    other, _, _ = sample_surface(triangles, 50, seed=4)
    assert points.equal(again)
    assert not points.equal(other)
    assert baked is not None
    torch.testing.assert_close(baked, points)
    assert state.equal(torch.get_rng_state())


def test_farthest_points_cover_and_do_not_depend_on_order() -> None:
    points = cloud()
    chosen = farthest_points(points, 20)
    assert all(len(set(row.tolist())) == 20 for row in chosen)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(1))
    shuffled = farthest_points(points[:, order], 20)
    assert order[shuffled].equal(chosen)
    picked = points.gather(1, chosen[..., None].expand(-1, -1, 3))
    covering = torch.cdist(points, picked).amin(-1).amax(-1)
    apart = torch.cdist(picked, picked).add(torch.eye(20) * 99).amin((1, 2))
    assert (covering <= apart + 1e-5).all(), "no point is farther away than the chosen are apart"


def test_farthest_points_of_equal_points() -> None:
    assert farthest_points(torch.zeros(1, 4, 3), 4).shape == (1, 4)


def test_nearest_points() -> None:
    points, queries = cloud(), cloud(1, 30)
    distances, index = nearest_points(queries, points, 8)
    exact = (queries[:, :, None] - points[:, None]).square().sum(-1).sort(-1)
    assert index.equal(exact.indices[..., :8])
    torch.testing.assert_close(distances, exact.values[..., :8])


def test_nearest_points_far_from_the_origin() -> None:
    points = torch.tensor([[[1000.0, 0, 0], [1000.5, 0, 0], [1002.0, 0, 0]]]).repeat(1, 20, 1)
    distances, _ = nearest_points(points[:, :1], points, 40)
    assert distances[0, 0, -1].item() == 0.25


def test_ball_points_are_the_first_inside() -> None:
    points = torch.tensor([[[3.0, 0, 0], [0.1, 0, 0], [0, 0.2, 0], [0, 0, 0.3]]])
    origin = torch.zeros(1, 1, 3)
    assert ball_points(origin, points, 1.0, 2).tolist() == [[[1, 2]]]
    assert ball_points(origin, points, 0.25, 4).tolist() == [[[1, 2, -1, -1]]]


def both(operation: Callable[..., Any], *arguments: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What pytorch3d gives, and what torch gives."""
    fast = operation(*arguments)
    with monkeypatch.context() as patched:
        patched.setattr(sampling, "pytorch3d", None)
        return fast, operation(*arguments)


@pytest.mark.skipif(sampling.pytorch3d is None, reason="pytorch3d is not installed")
class TestEqualsPytorch3d:
    """Indices are equal because no two distances of random points are; floats to rounding."""

    @pytest.mark.parametrize("seed", range(3))
    def test_farthest_points(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        fast, slow = both(farthest_points, cloud(seed), 64, monkeypatch=monkeypatch)
        assert fast.equal(slow)

    @pytest.mark.parametrize("seed", range(3))
    def test_nearest_points(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        queries = cloud(seed + 10, 50)
        fast, slow = both(nearest_points, queries, cloud(seed), 16, monkeypatch=monkeypatch)
        torch.testing.assert_close(fast[0], slow[0])
        assert fast[1].equal(slow[1])

    def test_nearest_points_at_equal_distances(self, monkeypatch: pytest.MonkeyPatch) -> None:
        grid = torch.cartesian_prod(*[torch.arange(4.0)] * 3)[None]
        fast, slow = both(nearest_points, grid, grid, 10, monkeypatch=monkeypatch)
        assert fast[0].equal(slow[0])

    @pytest.mark.parametrize("seed", range(3))
    def test_ball_points(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        queries = cloud(seed + 10, 50)
        fast, slow = both(ball_points, queries, cloud(seed), 0.8, 16, monkeypatch=monkeypatch)
        assert (slow == -1).any()
        assert (slow != -1).any()
        assert fast.equal(slow)

    @pytest.mark.parametrize("shape", [box, ball])
    def test_sample_surface(
        self, shape: Callable[[], Tensor], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        triangles = shape()
        fast, slow = both(sample_surface, triangles, 500, triangles * 2, monkeypatch=monkeypatch)
        for ours, theirs in zip(slow, fast, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
