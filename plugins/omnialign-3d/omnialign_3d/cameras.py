"""Where a shape is looked at from.

A camera is a rotation `(3, 3)` whose rows are the picture's right, its up, and the way towards the
viewer: `camera @ p` are a point's coordinates in the picture and its nearness. Projection is
parallel.

Axes: V views.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from omnialign_3d.sampling import GOLDEN_FRACTION

Arrangement = Literal["ring", "dome"]
RING_ELEVATION_DEGREES = 30.0
"""Su et al., "Multi-view Convolutional Neural Networks" (ICCV 2015)."""


def camera(azimuth_degrees: float, elevation_degrees: float) -> Tensor:
    """A camera at an azimuth about +y, counted from +z towards +x, and an elevation."""
    azimuth, elevation = math.radians(azimuth_degrees), math.radians(elevation_degrees)
    ca, sa, ce, se = math.cos(azimuth), math.sin(azimuth), math.cos(elevation), math.sin(elevation)
    return torch.tensor([[ca, 0.0, -sa], [-sa * se, ce, -ca * se], [sa * ce, se, ca * ce]])


def arranged(arrangement: Arrangement, num_views: int) -> Tensor:
    """Cameras `(V, 3, 3)` that look down on a shape.

    `ring`: at equal angles about the up axis, 30 degrees above the horizon. `dome`: evenly over the
    upper half of a ball, on a spiral of golden angles from the horizon to the top.
    """
    if arrangement == "ring":
        turns = [(view / num_views, RING_ELEVATION_DEGREES) for view in range(num_views)]
    else:
        heights = [(view + 0.5) / num_views for view in range(num_views)]
        turns = [
            (view * GOLDEN_FRACTION % 1, math.degrees(math.asin(height)))
            for view, height in enumerate(heights)
        ]
    return torch.stack([camera(360 * turn, elevation) for turn, elevation in turns])
