"""From a point cloud to what the encoders take.

Axes: n clouds of a batch, P points of an encoder's input, F features of a point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from omnialign import OmniAlignError
from omnialign_3d.cloud import Axis, PointCloud, upright
from omnialign_3d.sampling import spread_indices, unit_sphere

_SMALLEST_SIZE = 1e-12
_THINNEST = 0.02
"""A sheet counts as this thick, as a part of its largest extent."""


@dataclass(frozen=True)
class PreparePoints:
    """Brings a cloud to a fixed number of points and, if wanted, to the unit sphere.

    The points are those at `spread_indices`, so each cloud always gives the same ones, and a cloud
    of fewer points gives them more than once.

    Attributes:
        num_points: P.
        up: the axis that is up in data that do not say so themselves; it is turned to +y.
        normalize: move the mean to the origin and divide by the radius; else only move.
        use_colors: add three features in -1..1; 0, a middle grey, where a cloud has no colours.
        use_normals: add three features; 0 where a cloud has no normals.
    """

    num_points: int
    up: Axis
    normalize: bool
    use_colors: bool
    use_normals: bool

    @property
    def num_features(self) -> int:
        """F of `points`."""
        return 3 + 3 * self.use_colors + 3 * self.use_normals

    def __call__(self, sample: PointCloud) -> dict[str, Tensor]:
        """`points` `(P, F)`, coordinates first, and `size` `(3,)`, the log of the extents."""
        cloud = upright(replace(sample, surface=None), self.up)
        cloud = cloud.take(spread_indices(len(cloud), self.num_points))
        points, radius = unit_sphere(cloud.points)
        colors = None if cloud.colors is None else 2 * cloud.colors - 1
        features = [points if self.normalize else points * radius]
        for wanted, values in ((self.use_colors, colors), (self.use_normals, cloud.normals)):
            if wanted:
                features.append(torch.zeros_like(points) if values is None else values)
        return {
            "points": torch.cat(features, dim=-1),
            "size": log_extents(cloud.points),
        }


def log_extents(points: Tensor) -> Tensor:
    """Logarithms `(3,)` of the extents of points `(N, 3)`; what is thin has a least thickness."""
    extents = points.amax(0) - points.amin(0)
    largest = extents.amax().clamp_min(_SMALLEST_SIZE)
    return torch.maximum(extents, _THINNEST * largest).log()


class SizeEmbedding(nn.Module):
    """Extents as features: a linear layer on their logarithms, which generalises to sizes between.

    Logarithms are divided by 4, so that lengths from a millimetre to a kilometre, in whatever unit,
    stay near -2 to 2.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, width)

    def forward(self, size: Tensor) -> Tensor:
        """Log extents `(n, 3)` to `(n, width)`."""
        return self.linear(size / 4)


def check_at_least(minimum: int, **options: int) -> None:
    """Raises an error for each option below `minimum`."""
    for name, value in options.items():
        if value < minimum:
            raise OmniAlignError(f"{name} wants {minimum} or more, found {value}")


def check_dropout(dropout: float) -> None:
    """Raises an error unless `dropout` is a part below 1."""
    if not 0 <= dropout < 1:
        raise OmniAlignError(f"dropout wants 0 to below 1, found {dropout}")
