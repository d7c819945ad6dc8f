"""Which triangle each pixel of a picture sees: by Embree's rays, or pytorch3d's rasteriser.

Axes: F triangles, V views, R pixels of a side.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from omnialign import OmniAlignError
from omnialign_3d import sampling

Renderer = Literal["auto", "embree", "pytorch3d"]
"""`auto` is Embree where it is installed, else pytorch3d, whose rasteriser is slow on a CPU."""
_VIEWER_DISTANCE = 2.0
"""From the middle; the shape reaches no farther than 1."""
_EDGE_WIDTH_SQUARED = 1e-10
"""To pytorch3d a place on the edge of two triangles is in neither: it would see through there."""


def intersect(
    triangles: Tensor, cameras: Tensor, side: int, half_width: float, renderer: Renderer
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each camera, what the pixels of its picture see.

    Args:
        triangles: `(F, 3, 3)` in the unit ball.
        cameras: `(V, 3, 3)`.
        side: R.
        half_width: of the picture.
        renderer: what does it.

    Yields:
        The camera; the triangle of each pixel `(R, R)`, int64, -1 where there is none; and the
        weights `(R, R, 3)` of its corners.

    Raises:
        OmniAlignError: it is not installed.
    """
    look = {"embree": _embree, "pytorch3d": _pytorch3d}[_installed(renderer)]
    return look(triangles, cameras, side, half_width)


def check_installed(renderer: Renderer) -> None:
    """Raises an error where nothing that `renderer` allows is installed."""
    _installed(renderer)


def _installed(renderer: Renderer) -> str:
    there = {"embree": find_spec("embreex"), "pytorch3d": sampling.pytorch3d}
    allowed = list(there) if renderer == "auto" else [renderer]
    for name in allowed:
        if there[name] is not None:
            return name
    raise OmniAlignError(
        f"pictures of shapes want {' or '.join(allowed)}, which is not installed; "
        "pip install 'omnialign-3d[views]' brings embree, pytorch3d is built from its source"
    )


def _centers(side: int, half_width: float) -> Tensor:
    """Coordinates `(R,)` of pixels, from left to right."""
    return ((2 * torch.arange(side) + 1) / side - 1) * half_width


def _embree(
    triangles: Tensor, cameras: Tensor, side: int, half_width: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene: Any = EmbreeScene()
    TriangleMesh(scene, triangles.contiguous().numpy())
    centers = _centers(side, half_width)
    rows, columns = torch.meshgrid(-centers, centers, indexing="ij")
    grid = torch.stack([columns, rows, torch.full_like(rows, _VIEWER_DISTANCE)], -1).view(-1, 3)
    for camera in cameras:
        ways = (-camera[2]).expand(len(grid), 3).contiguous()
        found = scene.run((grid @ camera).numpy(), ways.numpy(), output=1)
        u, v = (torch.from_numpy(found[name]) for name in ("u", "v"))
        weights = torch.stack([1 - u - v, u, v], -1).view(side, side, 3)
        yield camera, torch.from_numpy(found["primID"]).long().view(side, side), weights


def _pytorch3d(
    triangles: Tensor, cameras: Tensor, side: int, half_width: float
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    rasterize = sampling.pytorch3d.renderer.mesh.rasterize_meshes
    faces = torch.arange(3 * len(triangles)).view(-1, 3)
    for camera in cameras:
        # Its x goes to the left and its z away from the viewer.
        seen = triangles.flatten(0, 1) @ camera.T * torch.tensor([-1.0, 1.0, -1.0])
        corners = torch.cat([seen[:, :2] / half_width, seen[:, 2:] + _VIEWER_DISTANCE], dim=1)
        meshes = sampling.pytorch3d.structures.Meshes([corners], [faces])
        found, _, weights, _ = rasterize(
            meshes, image_size=side, blur_radius=_EDGE_WIDTH_SQUARED, faces_per_pixel=1
        )
        yield camera, found[0, ..., 0], weights[0, :, :, 0]
