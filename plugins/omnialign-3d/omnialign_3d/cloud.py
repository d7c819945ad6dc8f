"""The canonical sample: a set of points in space.

Axes: N points, 3 the coordinates x, y, z (or red, green, blue).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from omnialign_3d.surface import Surface

Axis = Literal["x", "y", "z", "-x", "-y", "-z"]
"""A direction along a coordinate axis."""

UP: Axis = "y"
"""The canonical up axis, that of glTF."""


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points on the surface of a thing, in the units of its file.

    Attributes:
        points: float32 `(N, 3)`, N ≥ 1, finite.
        colors: float32 `(N, 3)` red, green, blue in 0..1 as a screen shows them; None where the
            source has none.
        normals: float32 `(N, 3)` of length 1, or 0 where a point has no direction; None where the
            source has none.
        surface: the triangles that the points were drawn from; None where the source has only
            points.
        up: the axis that is up, where the source says it; None where it does not.
    """

    points: Tensor
    colors: Tensor | None = None
    normals: Tensor | None = None
    surface: Surface | None = None
    up: Axis | None = None

    def __len__(self) -> int:
        return len(self.points)

    def take(self, indices: Tensor) -> PointCloud:
        """The points at `indices` (int64), in that order, with what belongs to them."""
        return replace(
            self,
            points=self.points[indices],
            colors=None if self.colors is None else self.colors[indices],
            normals=None if self.normals is None else self.normals[indices],
        )

    def turn(self, matrix: Tensor) -> PointCloud:
        """Rotated or mirrored by an orthogonal matrix `(3, 3)`: `p' = matrix @ p`."""
        return replace(
            self,
            points=self.points @ matrix.T,
            normals=None if self.normals is None else self.normals @ matrix.T,
            surface=None if self.surface is None else self.surface.turn(matrix),
        )


def upright(cloud: PointCloud, up: Axis) -> PointCloud:
    """The cloud with +y up; `up` is what holds where the cloud does not say its own."""
    return convert_up(cloud, cloud.up or up, UP)


def convert_up(cloud: PointCloud, source: Axis, target: Axis = UP) -> PointCloud:
    """Turns a cloud whose up axis is `source` so that `target` is up.

    The turn is the quarter turn in the plane of both axes (z to y: `(x, y, z)` to `(x, z, -y)`);
    from an axis to its opposite it is a half turn about the next axis in the order x, y, z, x.
    Nothing is mirrored. The result says that `target` is up.
    """
    import torch

    cloud = replace(cloud, up=target)
    if source == target:
        return cloud
    s, t = direction(source), direction(target)
    if source[-1] == target[-1]:
        turn_axis = torch.roll(s.abs(), 1)
        return cloud.turn(2 * torch.diag(turn_axis) - torch.eye(3))
    # Rodrigues' formula at 90 degrees about s × t.
    x, y, z = torch.linalg.cross(s, t).tolist()
    k = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return cloud.turn(torch.eye(3) + k + k @ k)


def direction(axis: Axis) -> Tensor:
    """The unit vector of an axis."""
    import torch

    vector = torch.zeros(3)
    vector["xyz".index(axis[-1])] = -1.0 if axis.startswith("-") else 1.0
    return vector
