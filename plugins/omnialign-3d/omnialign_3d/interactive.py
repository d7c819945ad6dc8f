"""A shape to turn: GLB, as pages draw it.

Axes: F triangles, N points.
"""

from __future__ import annotations

import numpy as np
import trimesh

from omnialign_3d.cloud import UP, PointCloud, upright
from omnialign_3d.surface import NUM_ATTRIBUTES

MAX_TRIANGLES = 200_000
"""Of more than that, the points are shown: a page has to load it."""


def glb(cloud: PointCloud) -> bytes:
    """The triangles in their colours, or the points where there are none, +y up."""
    cloud = upright(cloud, UP)
    surface = cloud.surface
    if surface is None or len(surface.triangles) > MAX_TRIANGLES:
        shape = trimesh.PointCloud(cloud.points.numpy(), _rgba(cloud.colors))
    else:
        corners = surface.triangles.reshape(-1, 3)
        colors = None
        if surface.attributes is not None:
            colors = surface.colors(surface.attributes.reshape(-1, NUM_ATTRIBUTES))
        faces = np.arange(len(corners)).reshape(-1, 3)
        shape = trimesh.Trimesh(corners.numpy(), faces, vertex_colors=_rgba(colors), process=False)
    exported = trimesh.Scene([shape]).export(file_type="glb")
    assert isinstance(exported, bytes)
    return exported


def _rgba(colors: object) -> np.ndarray | None:
    if colors is None:
        return None
    rgb = (np.asarray(colors) * 255).round().astype(np.uint8)
    return np.concatenate([rgb, np.full((len(rgb), 1), 255, np.uint8)], axis=1)
