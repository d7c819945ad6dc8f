"""A picture of a point cloud.

Axes: N points, D pixels of a disc, H and W the size of a view.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from omnialign_3d.cloud import UP, PointCloud, upright
from omnialign_3d.sampling import unit_sphere

VIEW_PIXELS = 320
_OVERSAMPLING = 2
_MARGIN = 0.92
_VIEWS_DEGREES = ((35.0, 22.0), (215.0, 48.0))
"""Azimuth about the up axis and elevation: from the front right, and from above behind."""

_BACKGROUND = np.array([250, 250, 248], np.float32) / 255
_LOW, _HIGH = np.array([[54, 92, 160], [236, 170, 80]], np.float32) / 255
_LIGHT = np.array([0.35, 0.6, 0.72], np.float32)
_FLIP = np.array([1, -1], np.float32)
"""Pictures count rows downwards."""

_AMBIENT = 0.45
_FOG = 0.3
"""How much of the farthest point's colour gives way to the background."""

Pixels = NDArray[np.floating[Any]]


def picture(cloud: PointCloud) -> bytes:
    """PNG of 640 × 320 pixels: two views side by side, parallel projection.

    Points are discs in the cloud's own colours, else coloured by height, lit by their normals.
    """
    cloud = upright(cloud, UP)
    points = unit_sphere(cloud.points)[0].numpy()
    normals = None if cloud.normals is None else cloud.normals.numpy()
    if cloud.colors is not None:
        colors = cloud.colors.numpy()
    else:
        height = (points[:, 1:2] - points[:, 1].min()) / max(float(np.ptp(points[:, 1])), 1e-6)
        colors = _LOW + (_HIGH - _LOW) * height
    views = [_view(points, colors, normals, *angles) for angles in _VIEWS_DEGREES]
    pixels = np.concatenate(views, axis=1)
    image = Image.fromarray((pixels * 255).round().astype(np.uint8))
    image = image.resize((2 * VIEW_PIXELS, VIEW_PIXELS), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _view(
    points: Pixels, colors: Pixels, normals: Any, azimuth_degrees: float, elevation_degrees: float
) -> Pixels:
    """One view `(H, W, 3)` in 0..1, oversampled."""
    camera = _camera(math.radians(azimuth_degrees), math.radians(elevation_degrees))
    seen = points @ camera.T
    depth = (1 - seen[:, 2:]) / 2
    shades = np.ones_like(depth)
    if normals is not None:
        facing = np.abs((normals @ camera.T) @ (_LIGHT / np.linalg.norm(_LIGHT)))[:, None]
        has_normal = (normals != 0).any(1, keepdims=True)
        shades = np.where(has_normal, _AMBIENT + (1 - _AMBIENT) * facing, shades)
    lit = np.clip(colors * shades, 0, 1)
    lit += (_BACKGROUND - lit) * _FOG * depth.clip(0, 1)

    size = VIEW_PIXELS * _OVERSAMPLING
    disc = _disc(_disc_radius(len(points), size))
    middle = (seen[:, :2] * _FLIP * _MARGIN + 1) * (size / 2)
    order = np.argsort(seen[:, 2], kind="stable")  # the nearest is painted last
    columns, rows = (middle[order, None].astype(int) + disc).clip(0, size - 1).transpose(2, 0, 1)
    view = np.broadcast_to(_BACKGROUND, (size, size, 3)).copy()
    view[rows, columns] = lit[order, None]
    return view


def _camera(azimuth: float, elevation: float) -> Pixels:
    """Rows are the picture's right, its up, and the way towards the viewer."""
    ca, sa, ce, se = math.cos(azimuth), math.sin(azimuth), math.cos(elevation), math.sin(elevation)
    rows = [[ca, 0.0, -sa], [-sa * se, ce, -ca * se], [sa * ce, se, ca * ce]]
    return np.array(rows, np.float32)


def _disc_radius(num_points: int, size: int) -> float:
    """Such that the discs of the near half of a ball just cover it, within limits."""
    covering = 0.95 * _MARGIN * size / math.sqrt(num_points)
    return min(max(covering, 2.0), size / 24)


def _disc(radius: float) -> NDArray[np.int64]:
    """Offsets `(D, 2)` of the pixels of a disc."""
    reach = math.ceil(radius)
    x, y = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = x**2 + y**2 <= radius**2
    return np.stack([x[inside], y[inside]], axis=1)
