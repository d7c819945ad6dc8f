"""Random changes of a point cloud; all randomness comes from the given generator.

Lengths are fractions of the cloud's radius (the distance of its farthest point from the mean), so
that one setting serves millimetres and metres. Rotation, scale and flip change the triangles of a
cloud as they change its points; jitter and dropout are of points and leave the triangles as they
are.

Axes: N points, 3 the coordinates x, y, z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Generator, Tensor

from omnialign import OmniAlignError
from omnialign_3d.cloud import Axis, PointCloud, direction


def _between(low: float, high: float, size: int, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(size, generator=generator)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise OmniAlignError(message)


@dataclass(frozen=True)
class Rotation:
    """Turns the cloud about its up axis, or about any axis.

    Args:
        max_degrees: the largest angle to either side; 180 reaches every direction.
        axis: `up`, or `any`: an axis drawn evenly from all directions.
        up: the axis that is up in data that do not say so themselves, as the encoder's option.
    """

    max_degrees: float = 180.0
    axis: Literal["up", "any"] = "up"
    up: Axis = "y"

    def __post_init__(self) -> None:
        _require(
            0 <= self.max_degrees <= 180,
            f"rotation: max_degrees wants 0 to 180, found {self.max_degrees}",
        )

    def __call__(self, sample: PointCloud, generator: Generator) -> PointCloud:
        limit = math.radians(self.max_degrees)
        angle = _between(-limit, limit, 1, generator)
        axis = direction(sample.up or self.up)
        if self.axis == "any":
            axis = torch.randn(3, generator=generator)
            axis = axis / axis.norm().clamp_min(1e-6)
        x, y, z = axis.tolist()
        k = torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        return sample.turn(torch.eye(3) + angle.sin() * k + (1 - angle.cos()) * (k @ k))


@dataclass(frozen=True)
class Scale:
    """Multiplies coordinates by a factor between `low` and `high`.

    Args:
        low: the smallest factor, above 0.
        high: the largest.
        per_axis: draw a factor for each axis, which stretches the shape; normals follow.
    """

    low: float = 0.8
    high: float = 1.25
    per_axis: bool = False

    def __post_init__(self) -> None:
        _require(
            0 < self.low <= self.high,
            f"scale: wants 0 < low <= high, found low={self.low}, high={self.high}",
        )

    def __call__(self, sample: PointCloud, generator: Generator) -> PointCloud:
        factors = _between(self.low, self.high, 3 if self.per_axis else 1, generator)
        normals = sample.normals
        if normals is not None and self.per_axis:
            normals = torch.nn.functional.normalize(normals / factors, dim=-1)
        surface = None if sample.surface is None else sample.surface.scale(factors)
        return replace(sample, points=sample.points * factors, normals=normals, surface=surface)


@dataclass(frozen=True)
class Flip:
    """Mirrors the cloud with a probability: a left hand becomes a right one.

    Args:
        axis: the coordinate whose sign changes.
        probability: in 0..1.
    """

    axis: Literal["x", "y", "z"] = "x"
    probability: float = 0.5

    def __post_init__(self) -> None:
        _require(
            0 <= self.probability <= 1,
            f"flip: probability wants 0 to 1, found {self.probability}",
        )

    def __call__(self, sample: PointCloud, generator: Generator) -> PointCloud:
        if torch.rand(1, generator=generator) >= self.probability:
            return sample
        signs = torch.ones(3)
        signs["xyz".index(self.axis)] = -1.0
        return sample.turn(torch.diag(signs))


@dataclass(frozen=True)
class Jitter:
    """Moves every point by Gaussian noise, cut off at three standard deviations.

    Args:
        std: of each coordinate, as a fraction of the radius.
    """

    std: float = 0.01

    def __post_init__(self) -> None:
        _require(self.std >= 0, f"jitter: std wants 0 or more, found {self.std}")

    def __call__(self, sample: PointCloud, generator: Generator) -> PointCloud:
        points = sample.points
        radius = (points - points.mean(0)).norm(dim=-1).amax()
        noise = torch.randn(points.shape, generator=generator).clamp_(-3, 3)
        return replace(sample, points=points + self.std * radius * noise)


@dataclass(frozen=True)
class Dropout:
    """Keeps a random part of the points in a random order.

    An encoder that takes fewer points than the cloud has then sees others at every epoch.

    Args:
        max_fraction: of the points that may go, in 0..1; at least one stays.
    """

    max_fraction: float = 0.5

    def __post_init__(self) -> None:
        _require(
            0 <= self.max_fraction < 1,
            f"dropout: max_fraction wants 0 to below 1, found {self.max_fraction}",
        )

    def __call__(self, sample: PointCloud, generator: Generator) -> PointCloud:
        kept = 1 - self.max_fraction * torch.rand(1, generator=generator).item()
        num_points = max(1, round(kept * len(sample)))
        return sample.take(torch.randperm(len(sample), generator=generator)[:num_points])
