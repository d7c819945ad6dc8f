"""Pictures of a shape: parallel projection, one light beside the viewer, a white ground.

Axes: F triangles, V views, S pixels of a side, K hits of a ray on a triangle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from omnialign_3d.cloud import PointCloud
from omnialign_3d.intersection import Renderer, intersect
from omnialign_3d.surface import Surface

OVERSAMPLING = 2
"""Rays to a side of a pixel."""
MARGIN = 1.04
"""Half the width of a picture, where the shape's farthest corner is 1 away from its middle."""
AMBIENT = 0.25
LIGHT = (0.35, 0.6, 0.72)
"""Towards the light: right, up and to the viewer."""
NEUTRAL_COLOR = 0.5
_COVERING = 2.4
"""Octahedra of this radius, divided by the root of their number, cover a ball of radius 1."""
_LARGEST_POINT = 0.1


class Solid(NamedTuple):
    """What is drawn: triangles in the unit ball, and what a ray sees on them."""

    triangles: Tensor
    """`(F, 3, 3)`."""
    surface: Surface | None
    """Whose colours the triangles have; None where they stand for points."""
    cloud: PointCloud


def render(
    cloud: PointCloud, cameras: Tensor, num_pixels: int, renderer: Renderer = "auto"
) -> Tensor:
    """A shape seen by cameras `(V, 3, 3)`, as uint8 RGB pictures `(V, 3, S, S)`.

    Its triangles, or where it has none, its points as small octahedra. The middle (of the area, or
    of the points) is the middle of every picture, and the farthest corner just fits in. Both sides
    of a triangle are seen and lit alike; a point without a normal is lit in full.

    Raises:
        OmniAlignError: nothing that `renderer` allows is installed.
    """
    solid = _solid(cloud)
    side = num_pixels * OVERSAMPLING
    views: list[Tensor] = []
    for camera, faces, weights in intersect(
        solid.triangles, cameras, side, MARGIN, renderer=renderer
    ):
        seen = torch.ones(side, side, 3)
        hit = faces >= 0
        seen[hit] = _lit(solid, faces[hit], weights[hit], camera)
        cells = seen.view(num_pixels, OVERSAMPLING, num_pixels, OVERSAMPLING, 3).mean((1, 3))
        views.append((cells * 255).round().to(torch.uint8).permute(2, 0, 1))
    return torch.stack(views)


def _solid(cloud: PointCloud) -> Solid:
    if cloud.surface is None:
        radius = min(_COVERING / math.sqrt(len(cloud)), _LARGEST_POINT)
        points = _framed(cloud.points, cloud.points.mean(0)) * (1 - radius)
        return Solid((points[:, None, None] + radius * OCTAHEDRON).flatten(0, 1), None, cloud)
    triangles = cloud.surface.triangles
    areas = _crossed(triangles).norm(dim=-1).double()
    middle = (areas[:, None] * triangles.double().mean(1)).sum(0) / areas.sum()
    return Solid(_framed(triangles, middle.float()), cloud.surface, cloud)


def _framed(points: Tensor, middle: Tensor) -> Tensor:
    """Points `(…, 3)` with the middle at the origin and the farthest at distance 1."""
    centered = points - middle
    radius = centered.norm(dim=-1).amax()
    return centered / torch.where(radius > 0, radius, torch.ones_like(radius))


def _crossed(triangles: Tensor) -> Tensor:
    """Normals `(F, 3)` as long as twice the area."""
    return torch.linalg.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 1])


def _lit(solid: Solid, faces: Tensor, weights: Tensor, camera: Tensor) -> Tensor:
    """Colours `(K, 3)` of hits: triangles `(K,)` and the weights `(K, 3)` of their corners."""
    if solid.surface is None:
        points = faces // len(OCTAHEDRON)
        colors, normals = (
            None if values is None else values[points]
            for values in (solid.cloud.colors, solid.cloud.normals)
        )
    else:
        attributes = solid.surface.attributes
        normals = torch.nn.functional.normalize(_crossed(solid.triangles[faces]), dim=-1)
        colors = None
        if attributes is not None:
            colors = solid.surface.colors((weights[..., None] * attributes[faces]).sum(1))
    if colors is None:
        colors = torch.full((len(faces), 3), NEUTRAL_COLOR)
    if normals is None:
        return colors
    light = torch.nn.functional.normalize(torch.tensor(LIGHT), dim=0) @ camera
    facing = (normals @ light).abs()
    shade = torch.where((normals != 0).any(1), AMBIENT + (1 - AMBIENT) * facing, 1.0)
    return colors * shade[:, None]


def _octahedron() -> Tensor:
    """Triangles `(8, 3, 3)` of radius 1."""
    x, y, z = torch.eye(3)
    return torch.stack(
        [
            torch.stack([sx * x, sy * y, sz * z])
            for sx in (1, -1)
            for sy in (1, -1)
            for sz in (1, -1)
        ]
    )


OCTAHEDRON = _octahedron()
