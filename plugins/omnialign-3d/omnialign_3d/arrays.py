"""Arrays of points, checked and bounded, as a point cloud.

Axes: N points, 3 the coordinates x, y, z (or red, green, blue).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from omnialign_3d.cloud import PointCloud
from omnialign_3d.sampling import spread_indices

Floats: TypeAlias = NDArray[np.floating[Any]]

MAX_POINTS = 4096
"""Points of a canonical cloud: as many as are sampled from a mesh, and kept of bare points."""

FAR_FROM_ORIGIN = 1e4
"""A cloud this many times its own size away from the origin would lose its shape in float32."""


def cloud_from_columns(values: NDArray[Any]) -> PointCloud:
    """Columns x y z, then (of 6 or 9) red green blue in 0..1, then (of 9) a normal.

    Raises:
        ValueError: another shape or type, or colours outside of 0..1.
    """
    if values.ndim != 2 or values.shape[1] not in (3, 6, 9) or values.dtype.kind not in "iuf":
        raise ValueError(
            "an array of points has shape (N, 3), (N, 6) with colours or (N, 9) with colours and "
            f"normals; found {values.shape} of {values.dtype}"
        )
    colors = values[:, 3:6] if values.shape[1] > 3 else None
    if colors is not None and values.dtype.kind in "iu":
        colors = colors.astype(np.float32)  # one type for all columns: no sign of 0..255
    return cloud_from_arrays(values[:, :3], colors, values[:, 6:] if values.shape[1] == 9 else None)


def cloud_from_arrays(
    points: NDArray[Any], colors: NDArray[Any] | None = None, normals: NDArray[Any] | None = None
) -> PointCloud:
    """Checks arrays `(N, 3)` and brings them to canonical form.

    Points with a coordinate that is not finite are left out. Of more than `MAX_POINTS`, those at
    `spread_indices` are kept. A cloud that is far from the origin for its size is moved there.
    Colours are 0..1, or integers up to the maximum of their type; normals are brought to length 1.

    Raises:
        ValueError: no finite point, another shape, or colours outside of 0..1.
    """
    for name, values in (("points", points), ("colors", colors), ("normals", normals)):
        if values is None:
            continue
        if values.shape != (len(points), 3) or values.dtype.kind not in "iuf":
            raise ValueError(
                f"{name} want shape ({len(points) or 'N'}, 3) of numbers; found {values.shape} of "
                f"{values.dtype}"
            )
    kept = np.flatnonzero(np.isfinite(points).all(1))
    if not len(kept):
        raise ValueError(f"it has no point with finite coordinates (of {len(points)} points)")
    if len(kept) > MAX_POINTS:
        kept = np.sort(kept[spread_indices(len(kept), MAX_POINTS).numpy()])
    return PointCloud(
        _tensor(near_origin(points[kept].astype(np.float64))),
        None if colors is None else _tensor(_checked_colors(colors[kept])),
        None if normals is None else _tensor(_unit_normals(normals[kept].astype(np.float64))),
    )


def near_origin(points: Floats) -> Floats:
    """Moves points `(…, 3)` by their middle where float32 could not hold their shape otherwise.

    Raises:
        ValueError: coordinates beyond what float32 can square.
    """
    if not points.size:
        return points
    flat = points.reshape(-1, 3)
    low, high = flat.min(0), flat.max(0)
    middle, size = (low + high) / 2, (high - low).max()
    if size > 0 and np.abs(middle).max() > FAR_FROM_ORIGIN * size:
        points = points - middle
    if np.abs(points).max() > 1e15:
        raise ValueError("it has coordinates beyond 1e15; scale it down")
    return points


def _tensor(values: Floats) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _checked_colors(colors: NDArray[Any]) -> Floats:
    if np.issubdtype(colors.dtype, np.integer):
        return colors / np.iinfo(colors.dtype).max
    colors = np.nan_to_num(colors.astype(np.float64), nan=0.5)
    low, high = colors.min(), colors.max()
    if low < 0 or high > 1:
        raise ValueError(
            f"colours lie in 0..1 (or are integers); found {low:g} to {high:g}. Divide 0..255 by "
            "255, and pass normals by name: {'points': …, 'normals': …}"
        )
    return colors


def _unit_normals(normals: Floats) -> Floats:
    normals = np.nan_to_num(normals, nan=0.0, posinf=0.0, neginf=0.0)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.where(lengths > 0, lengths, 1)
