"""Operations on points in space, in torch; pytorch3d does them where it is installed.

Both give the same results: indices are equal wherever distances differ, and surface samples are
drawn from the same random numbers. Every operation takes float32 tensors and is deterministic.

Axes: B clouds, N points, M queries, K neighbours or samples, F triangles, C attributes.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

GOLDEN_FRACTION = (math.sqrt(5) - 1) / 2


def _installed_pytorch3d() -> Any:
    """The package with the parts that are used here; None where it cannot be imported."""
    try:
        for part in ("ops", "renderer", "structures"):
            import_module(f"pytorch3d.{part}")
        return import_module("pytorch3d")
    except (ImportError, OSError):  # OSError: built for another CUDA
        return None


pytorch3d = _installed_pytorch3d()


def spread_indices(length: int, num_samples: int) -> Tensor:
    """Indices `(K,)` that are spread evenly over `range(length)`, however many are taken.

    Steps of about `length` times the golden ratio, so nothing is drawn at random. Every index
    comes once before any comes again: where K exceeds `length`, the walk starts over.
    """
    step = max(1, round(length * GOLDEN_FRACTION))
    while math.gcd(step, length) != 1:
        step += 1
    return torch.arange(num_samples) * step % length


def unit_sphere(points: Tensor) -> tuple[Tensor, Tensor]:
    """Moves the mean to the origin and the farthest point to distance 1.

    Args:
        points: `(…, N, 3)`.

    Returns:
        The points, and the radius `(…, 1, 1)` they were divided by. Where all points coincide the
        radius is 0 and nothing is divided.
    """
    centered = points - points.mean(-2, keepdim=True)
    radius = centered.norm(dim=-1, keepdim=True).amax(-2, keepdim=True)
    return centered / torch.where(radius > 0, radius, torch.ones_like(radius)), radius


def sample_surface(
    triangles: Tensor, num_samples: int, attributes: Tensor | None = None, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Draws points evenly from a surface: a triangle by its area, then a place in it.

    A place has the weights `1 - √u, √u (1 - v), √u v` of the corners (Osada et al., "Shape
    distributions", 2002).

    Args:
        triangles: `(F, 3, 3)` corners of each, counter-clockwise seen from outside; the areas must
            not all be 0, and F is at most 2²⁴.
        num_samples: K.
        attributes: `(F, 3, C)` values at each corner, to be interpolated.
        seed: of the random numbers.

    Returns:
        Points `(K, 3)`; normals `(K, 3)` of the triangles; attributes `(K, C)`, or None.
    """
    if pytorch3d is not None:
        return _sample_with_pytorch3d(triangles, num_samples, attributes, seed)
    generator = torch.Generator(triangles.device).manual_seed(seed)
    cross = torch.linalg.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 1])
    double_areas = cross.norm(dim=-1)
    chosen = torch.multinomial(double_areas / 2, num_samples, True, generator=generator)
    u, v = torch.rand(2, 1, num_samples, generator=generator, device=triangles.device)[:, 0]
    weights = torch.stack([1 - u.sqrt(), u.sqrt() * (1 - v), u.sqrt() * v], dim=-1)[..., None]
    normals = cross / double_areas.clamp_min(torch.finfo(torch.float32).tiny)[:, None]
    points = (weights * triangles[chosen]).sum(1)
    baked = None if attributes is None else (weights * attributes[chosen]).sum(1)
    return points, normals[chosen], baked


def _sample_with_pytorch3d(
    triangles: Tensor, num_samples: int, attributes: Tensor | None, seed: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    corners = triangles.reshape(-1, 3)
    faces = torch.arange(len(corners), device=triangles.device).reshape(-1, 3)
    textures = None
    if attributes is not None:
        textures = pytorch3d.renderer.TexturesVertex([attributes.flatten(0, 1)])
    meshes = pytorch3d.structures.Meshes([corners], [faces], textures)
    devices = [triangles.device] if triangles.is_cuda else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        drawn = pytorch3d.ops.sample_points_from_meshes(
            meshes, num_samples, return_normals=True, return_textures=attributes is not None
        )
    return drawn[0][0], drawn[1][0], None if attributes is None else drawn[2][0]


@torch.no_grad()
def farthest_points(points: Tensor, num_samples: int) -> Tensor:
    """Farthest-point sampling (Gonzalez 1985; Qi et al., PointNet++, 2017).

    The first is the point farthest from the mean, so the choice does not depend on the order of
    the points; each next one is farthest from those chosen. Of equally far points the one that
    comes first is taken.

    Args:
        points: `(B, N, 3)`.
        num_samples: K, at most N.

    Returns:
        Indices `(B, K)`, int64.
    """
    B, N, _ = points.shape
    assert num_samples <= N, f"wanted {num_samples} of {N} points"
    first = (points - points.mean(1, keepdim=True)).square().sum(-1).argmax(1)
    if pytorch3d is not None:
        # It starts at index 0: the first point trades places with the one that is there.
        order = torch.arange(N, device=points.device).repeat(B, 1)
        order[:, 0] = first
        order.scatter_(1, first[:, None], 0)
        swapped = points.gather(1, order[..., None].expand(-1, -1, 3))
        _, chosen = pytorch3d.ops.sample_farthest_points(swapped, K=num_samples)
        return order.gather(1, chosen)
    rows = torch.arange(B, device=points.device)
    chosen = first.new_empty(B, num_samples)
    distances = points.new_full((B, N), torch.inf)
    latest = first
    for step in range(num_samples):
        chosen[:, step] = latest
        offsets = points - points[rows, latest][:, None]
        distances = torch.minimum(distances, offsets.square().sum(-1))
        latest = distances.argmax(1)
    return chosen


@torch.no_grad()
def nearest_points(queries: Tensor, points: Tensor, num_neighbors: int) -> tuple[Tensor, Tensor]:
    """The K nearest points of each query, nearest first.

    Which of equally near points comes first is not promised.

    Args:
        queries: `(B, M, 3)`.
        points: `(B, N, 3)`.
        num_neighbors: K, at most N.

    Returns:
        Squared distances `(B, M, K)` and indices `(B, M, K)`, int64.
    """
    assert num_neighbors <= points.shape[1], f"wanted {num_neighbors} of {points.shape[1]} points"
    if pytorch3d is not None:
        found = pytorch3d.ops.knn_points(queries, points, K=num_neighbors)
        return found.dists, found.idx
    near = _squared_distances(queries, points).topk(num_neighbors, dim=-1, largest=False)
    return near.values, near.indices


@torch.no_grad()
def ball_points(queries: Tensor, points: Tensor, radius: float, num_neighbors: int) -> Tensor:
    """The first K points, in their order, that are nearer than `radius` to each query.

    Args:
        queries: `(B, M, 3)`.
        points: `(B, N, 3)`.
        radius: in the units of the points.
        num_neighbors: K, at most N.

    Returns:
        Indices `(B, M, K)`, int64; -1 where there are fewer than K.
    """
    N = points.shape[1]
    assert num_neighbors <= N, f"wanted {num_neighbors} of {N} points"
    if pytorch3d is not None:
        found = pytorch3d.ops.ball_query(
            queries, points, K=num_neighbors, radius=radius, return_nn=False
        )
        return found.idx
    inside = _squared_distances(queries, points) < radius**2
    index = torch.arange(N, device=points.device)
    first = torch.where(inside, index, N).topk(num_neighbors, dim=-1, largest=False).values
    return torch.where(first < N, first, -1)


def _squared_distances(queries: Tensor, points: Tensor) -> Tensor:
    """`(B, M, N)`, from coordinate differences: a matrix product would cancel digits."""
    total = queries.new_zeros(*queries.shape[:2], points.shape[1])
    for axis in range(3):
        total += (queries[:, :, None, axis] - points[:, None, :, axis]).square()
    return total
