"""The canonical sample: a set of points in space.

Axes: N points, 3 the coordinates x, y, z (or red, green, blue).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Axis = Literal["x", "y", "z", "-x", "-y", "-z"]
"""A direction along a coordinate axis."""

UP: Axis = "y"
"""The canonical up axis, that of glTF."""


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points on the surface of a thing, in the units of its file.

    Attributes:
        points: float32 `(N, 3)`, N ≥ 1, finite; +y is up.
        colors: float32 `(N, 3)` red, green, blue in 0..1 as a screen shows them; None where the
            source has none.
        normals: float32 `(N, 3)` of length 1, or 0 where a point has no direction; None where the
            source has none.
    """

    points: Tensor
    colors: Tensor | None = None
    normals: Tensor | None = None

    def __len__(self) -> int:
        return len(self.points)

    def take(self, indices: Tensor) -> PointCloud:
        """The points at `indices` (int64), in that order, with what belongs to them."""
        return PointCloud(
            self.points[indices],
            None if self.colors is None else self.colors[indices],
            None if self.normals is None else self.normals[indices],
        )

    def turn(self, matrix: Tensor) -> PointCloud:
        """Rotated or mirrored by an orthogonal matrix `(3, 3)`: `p' = matrix @ p`."""
        normals = None if self.normals is None else self.normals @ matrix.T
        return PointCloud(self.points @ matrix.T, self.colors, normals)


def convert_up(cloud: PointCloud, source: Axis, target: Axis = UP) -> PointCloud:
    """Turns a cloud whose up axis is `source` so that `target` is up.

    The turn is the quarter turn in the plane of both axes (z to y: `(x, y, z)` to `(x, z, -y)`);
    from an axis to its opposite it is a half turn about the next axis in the order x, y, z, x.
    Nothing is mirrored.
    """
    import torch

    if source == target:
        return cloud
    s, t = _direction(source), _direction(target)
    if source[-1] == target[-1]:
        turn_axis = torch.roll(s.abs(), 1)
        return cloud.turn(2 * torch.diag(turn_axis) - torch.eye(3))
    # Rodrigues' formula at 90 degrees about s × t.
    x, y, z = torch.linalg.cross(s, t).tolist()
    k = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return cloud.turn(torch.eye(3) + k + k @ k)


def _direction(axis: Axis) -> Tensor:
    """The unit vector of an axis."""
    import torch

    vector = torch.zeros(3)
    vector["xyz".index(axis[-1])] = -1.0 if axis.startswith("-") else 1.0
    return vector
