"""Whatever a person holds, as a point cloud.

Axes: N points, 3 the coordinates x, y, z (or red, green, blue).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import numpy as np

from omnialign import OmniAlignError, ReadError
from omnialign_3d.arrays import cloud_from_arrays, cloud_from_columns
from omnialign_3d.cloud import UP, Axis, PointCloud
from omnialign_3d.declared import (
    MAX_FILE_BYTES,
    SNIFFED_BYTES,
    check_declared,
    is_trimesh,
    looks_like_obj,
    read_npy,
    sniff,
)

SUFFIXES = frozenset((".ply", ".obj", ".off", ".stl", ".glb", ".gltf", ".npy", ".pcd"))
_KEYS = ("points", "colors", "normals")


def read(source: Any) -> PointCloud:
    """Any form that the modality takes; see `PointClouds.read`."""
    try:
        return _read(source)
    except OmniAlignError:
        raise
    except FileNotFoundError as error:
        raise ReadError(source, "there is no such file") from error
    except (ValueError, OSError, MemoryError) as error:
        raise ReadError(source, str(error) or type(error).__name__) from error


def _read(source: Any) -> PointCloud:
    if isinstance(source, str | PathLike):
        return _read_path(Path(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _read_bytes(bytes(source), None, None)
    if isinstance(source, PointCloud):
        given = {key: getattr(source, key) for key in (*_KEYS, "up")}
        return replace(_from_mapping(given), surface=source.surface)
    if isinstance(source, Mapping):
        return _from_mapping(source)
    if is_trimesh(source):
        from omnialign_3d.meshes import cloud_from_trimesh

        return cloud_from_trimesh(source)
    if isinstance(source, np.ndarray) or _is_tensor(source):
        return cloud_from_columns(_array(source))
    if callable(getattr(source, "read", None)):
        return _read_bytes(_all_bytes(source), None, None)
    raise ReadError(
        source,
        "it wants a path, bytes, an open binary file, a trimesh object, an array (N, 3), (N, 6) or "
        "(N, 9), a PointCloud, or a dict of points, colors, normals and up",
    )


def _is_tensor(source: Any) -> bool:
    return callable(getattr(source, "detach", None)) and hasattr(source, "cpu")


def _array(values: Any) -> np.ndarray[Any, Any]:
    if _is_tensor(values):
        values = values.detach().cpu()
        return (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _from_mapping(values: Mapping[str, Any]) -> PointCloud:
    if "points" not in values or (set(values) - {*_KEYS, "up"}):
        raise ValueError(
            "a dict wants 'points', and may have 'colors', 'normals' and 'up'; found "
            f"{sorted(values)}"
        )
    up = values.get("up")
    if up is not None and up not in get_args(Axis):
        raise ValueError(f"'up' wants one of {', '.join(get_args(Axis))}; found {up!r}")
    points, *others = (values.get(key) for key in _KEYS)
    cloud = cloud_from_arrays(_array(points), *(None if o is None else _array(o) for o in others))
    return replace(cloud, up=up)


def _read_path(path: Path) -> PointCloud:
    num_bytes = path.stat().st_size
    if num_bytes > MAX_FILE_BYTES:
        raise ValueError(_too_large(num_bytes))
    suffix = path.suffix.lower()
    return _read_bytes(path.read_bytes(), suffix[1:] if suffix in SUFFIXES else None, path.parent)


def _all_bytes(file: Any) -> bytes:
    data = file.read(MAX_FILE_BYTES + 1)
    if not isinstance(data, bytes):
        raise ValueError("it wants a file opened in binary mode ('rb')")
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(_too_large(len(data)))
    return data


def _too_large(num_bytes: int) -> str:
    return f"it has {num_bytes} bytes or more; at most {MAX_FILE_BYTES >> 20} MiB are read"


def _read_bytes(data: bytes, kind: str | None, folder: Path | None) -> PointCloud:
    """`kind` is the format that a suffix tells; without it the content does."""
    if not data:
        raise ValueError("it is empty")
    kind = kind or sniff(data[:SNIFFED_BYTES], len(data)) or _guess(data)
    if kind == "npy":
        return cloud_from_columns(read_npy(data))
    if kind == "pcd":
        from omnialign_3d.pcd import read_pcd

        return read_pcd(data)
    from omnialign_3d.meshes import read_with_trimesh

    check_declared(data, kind)
    cloud = read_with_trimesh(data, kind, folder)
    return replace(cloud, up=UP) if kind in ("glb", "gltf") else cloud


def _guess(data: bytes) -> str:
    """The format of bytes without a mark."""
    if data.lstrip().startswith(b"{") and b'"asset"' in data:
        return "gltf"
    if looks_like_obj(data):
        return "obj"
    wanted = ", ".join(sorted(suffix[1:].upper() for suffix in SUFFIXES))
    raise ValueError(f"its content is of no format that is read: {wanted}")
