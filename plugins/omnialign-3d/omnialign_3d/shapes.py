"""Simple shapes, for examples and tests.

Axes: P points of a profile, S steps around the axis, F triangles.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from omnialign_3d.cloud import PointCloud
from omnialign_3d.sampling import sample_surface
from omnialign_3d.surface import COLOR, LAYER, NO_TEXTURE, NUM_ATTRIBUTES, Surface

NUM_EXAMPLE_POINTS = 600
_STEPS_AROUND = 32


def examples(n: int) -> list[PointCloud]:
    """`n` clouds of 600 points: the shapes in turn, each round larger and flatter.

    Every second keeps its triangles; every third has no colours.
    """
    return [_example(index) for index in range(n)]


def _example(index: int) -> PointCloud:
    round_, kind = divmod(index, len(SHAPES))
    triangles = list(SHAPES.values())[kind]() * (1 + 0.5 * index)
    triangles = triangles * torch.tensor([1.0, 1 / (1 + round_), 1.0])
    points, normals, _ = sample_surface(triangles, NUM_EXAMPLE_POINTS, seed=index)
    hue = torch.tensor([index * 0.31 % 1, index * 0.17 % 1, 1 - index * 0.23 % 1])
    has_colors = index % 3 != 2
    surface = Surface(triangles, painted(triangles, hue) if has_colors else None)
    return PointCloud(
        points,
        hue.expand_as(points).clone() if has_colors else None,
        normals,
        surface if index % 2 == 0 else None,
    )


def painted(triangles: Tensor, color: Tensor) -> Tensor:
    """Attributes of a `Surface` of one colour `(3,)`."""
    attributes = torch.zeros(len(triangles), 3, NUM_ATTRIBUTES)
    attributes[..., COLOR], attributes[..., LAYER] = color, NO_TEXTURE
    return attributes


def box() -> Tensor:
    """A cube of edge 2 about the origin, triangles `(12, 3, 3)`."""
    square = torch.tensor([[-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    face = square[torch.tensor([[0, 1, 2], [0, 2, 3]])]
    turns = [face, face.roll(1, -1), face.roll(2, -1)]
    return torch.cat([*turns, *(-side.flip(1) for side in turns)])


def revolved(profile: list[tuple[float, float]]) -> Tensor:
    """The surface `(F, 3, 3)` of a profile of (radius, height), upwards, turned about +y."""
    radius, height = torch.tensor(profile).T
    angle = torch.arange(_STEPS_AROUND + 1) * (2 * math.pi / _STEPS_AROUND)
    rings = torch.stack(
        [
            radius[:, None] * angle.sin(),
            height[:, None].expand(-1, len(angle)),
            radius[:, None] * angle.cos(),
        ],
        dim=-1,
    )
    a, b, c, d = rings[:-1, :-1], rings[:-1, 1:], rings[1:, 1:], rings[1:, :-1]
    return torch.stack([a, b, c, a, c, d], dim=2).reshape(-1, 3, 3)


def ball() -> Tensor:
    """A sphere of radius 1."""
    turns = [math.pi * (step / 16 - 0.5) for step in range(17)]
    return revolved([(math.cos(t), math.sin(t)) for t in turns])


def ring() -> Tensor:
    """A torus of radii 1 and 0.35, lying flat."""
    turns = [2 * math.pi * step / 16 for step in range(17)]
    return revolved([(1 + 0.35 * math.cos(t), 0.35 * math.sin(t)) for t in turns])


def cylinder() -> Tensor:
    """An upright cylinder of radius 1 and height 2."""
    return revolved([(0.0, -1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 1.0)])


def cone() -> Tensor:
    """An upright cone of radius 1 and height 2."""
    return revolved([(0.0, -1.0), (1.0, -1.0), (0.0, 1.0)])


SHAPES: dict[str, Callable[[], Tensor]] = {
    "cube": box,
    "ball": ball,
    "ring": ring,
    "cylinder": cylinder,
    "cone": cone,
}
