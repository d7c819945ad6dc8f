"""Meshes, scenes and what trimesh reads, as points.

Axes: V vertices, F triangles, K sampled points.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from omnialign_3d.arrays import MAX_POINTS, Floats, cloud_from_arrays, near_origin
from omnialign_3d.cloud import PointCloud
from omnialign_3d.sampling import sample_surface
from omnialign_3d.surface import COLOR, LAYER, NO_TEXTURE, NUM_ATTRIBUTES, UV, Surface

MAX_TRIANGLES = 2_000_000
MAX_TEXTURE_PIXELS = 4 * 4096 * 4096
"""Of all textures of a file together."""
MAX_LINKED_BYTES = 64 * 2**20
NEUTRAL_COLOR = 0.5
_PLACEHOLDER_LEVEL = 100
"""Of the grey picture that trimesh puts where a material has none."""


class Part(NamedTuple):
    """One geometry of a scene: triangles `(F, 3, 3)` and attributes `(F, 3, 6)` of a `Surface`."""

    triangles: Floats
    attributes: Floats | None


class FolderResolver:
    """Gives trimesh the files that a model names, if they lie in the model's folder."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, name: str) -> bytes:
        if self.folder is None:
            raise FileNotFoundError(f"'{name}' is a file of its own, and only a path says where")
        path = (self.folder / name.strip()).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise PermissionError(f"'{name}' lies outside the folder of the file")
        if path.stat().st_size > MAX_LINKED_BYTES:
            raise ValueError(f"'{name}' is larger than {MAX_LINKED_BYTES >> 20} MiB")
        return path.read_bytes()

    __getitem__ = get


@contextmanager
def _quiet() -> Generator[None]:
    """Holds back what trimesh logs and what numpy and Pillow warn of while it reads."""
    log = logging.getLogger("trimesh")
    before, log.disabled = log.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def read_with_trimesh(data: bytes, kind: str, folder: Path | None) -> PointCloud:
    """A file of format `kind` (a suffix without its dot); linked files come from `folder` only."""
    import trimesh

    resolver: Any = FolderResolver(folder)
    try:
        with _quiet():
            scene = trimesh.load_scene(
                io.BytesIO(data), file_type=kind, resolver=resolver, process=False
            )
    except Exception as error:
        raise ValueError(f"it is no sound {kind.upper()} file ({error})") from error
    return cloud_from_trimesh(scene, is_gltf=kind in ("glb", "gltf"))


def cloud_from_trimesh(source: Any, is_gltf: bool = False) -> PointCloud:
    """A `trimesh.Trimesh`, `Scene` or `PointCloud`; every node of a scene in world coordinates.

    Surfaces are sampled; bare points count only where there is no surface. Lines are left out.
    Colours of a glTF's corners, and the factors of every PBR material, are linear light and are
    brought to sRGB.

    Raises:
        ValueError: there is neither a surface nor a point, too much of a surface, or faces,
            colours and textures that do not fit.
    """
    try:
        with _quiet():
            return _flattened(source, is_gltf)
    except (IndexError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ValueError(f"its geometry is not sound ({error})") from error


def _flattened(source: Any, is_gltf: bool) -> PointCloud:
    parts = list(_parts(source))
    meshes = [(m, g) for m, g in parts if len(getattr(g, "faces", ()))]
    num_triangles = sum(len(g.faces) for _, g in meshes)
    if num_triangles > MAX_TRIANGLES:
        raise ValueError(f"it has {num_triangles} triangles; at most {MAX_TRIANGLES} are read")
    textures = _Textures()
    found = [_part(mesh, matrix, textures, is_gltf) for matrix, mesh in meshes]
    surface = _joined(found, tuple(textures.pixels)) if found else None
    return _bare_points(parts, is_gltf) if surface is None else sampled(surface)


def _parts(source: Any) -> Iterator[tuple[Floats, Any]]:
    """Each geometry with its world transform."""
    if not hasattr(source, "geometry"):
        yield np.eye(4), source
        return
    for node in source.graph.nodes_geometry:
        matrix, name = source.graph[node]
        yield np.asarray(matrix, dtype=np.float64), source.geometry[name]


def _bare_points(parts: list[tuple[Floats, Any]], is_gltf: bool) -> PointCloud:
    found = [(m, g) for m, g in parts if len(getattr(g, "vertices", ())) and not _is_path(g)]
    if not found:
        raise ValueError("it holds neither triangles nor points")
    points = np.concatenate([_moved(np.asarray(g.vertices), m) for m, g in found])
    single = found[0][1] if len(found) == 1 else None
    visual: Any = getattr(single, "visual", None)
    has_colors = getattr(visual, "kind", None) == "vertex"
    colors = np.reshape(visual.vertex_colors, (-1, 4))[:, :3] if has_colors else points[:0]
    if is_gltf:
        colors = _as_shown(_unit_range(colors))
    return cloud_from_arrays(
        points,
        colors if len(colors) == len(points) else None,
        _ply_normals(single, len(points)),
    )


def _is_path(geometry: Any) -> bool:
    return hasattr(geometry, "entities")


def _ply_normals(geometry: Any, num_points: int) -> Floats | None:
    """Normals of a PLY without faces, which trimesh keeps only in its raw form."""
    raw = getattr(geometry, "metadata", {}).get("_ply_raw", {}).get("vertex", {}).get("data")
    try:
        normals = np.column_stack([np.asarray(raw[axis]).ravel() for axis in ("nx", "ny", "nz")])
    except (KeyError, ValueError, TypeError, IndexError):
        return None
    return normals if len(normals) == num_points else None


def _moved(vertices: NDArray[Any], matrix: Floats) -> Floats:
    return vertices.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


class _Textures:
    """Pictures `(H, W, 3)`, each once however many geometries use it."""

    def __init__(self) -> None:
        self.pixels: list[torch.Tensor] = []
        self._layers: dict[int, int] = {}
        self._num_pixels = 0

    def layer(self, image: Any) -> int:
        """The number of a Pillow image, which is decoded the first time."""
        if id(image) in self._layers:
            return self._layers[id(image)]
        self._num_pixels += image.width * image.height
        if self._num_pixels > MAX_TEXTURE_PIXELS:
            raise ValueError(
                f"its textures have more than {MAX_TEXTURE_PIXELS} pixels; make them smaller"
            )
        pixels = np.array(image.convert("RGB"))
        is_placeholder = pixels.shape[:2] == (2, 2) and (pixels == _PLACEHOLDER_LEVEL).all()
        self._layers[id(image)] = NO_TEXTURE if is_placeholder else len(self.pixels)
        if not is_placeholder:
            self.pixels.append(torch.from_numpy(pixels))
        return self._layers[id(image)]


def _part(mesh: Any, matrix: Floats, textures: _Textures, is_gltf: bool) -> Part:
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= len(vertices):
        raise ValueError(
            f"a face names vertex {low if low < 0 else high}, but the vertices are 0 to "
            f"{len(vertices) - 1}"
        )
    attributes = _attributes(mesh, faces, textures, is_gltf)
    triangles = _moved(vertices, matrix)[faces]
    if np.linalg.det(matrix[:3, :3]) < 0:  # a mirrored node turns its faces inside out
        triangles = triangles[:, ::-1]
        attributes = None if attributes is None else attributes[:, ::-1]
    sound = np.isfinite(triangles).all((1, 2))
    return Part(triangles[sound], None if attributes is None else attributes[sound])


def _attributes(
    mesh: Any, faces: NDArray[Any], textures: _Textures, is_gltf: bool
) -> Floats | None:
    """What is needed to colour a point of each face, `(F, 3, 6)`; None for a mesh of no colour."""
    visual = mesh.visual
    values = np.zeros((*faces.shape, NUM_ATTRIBUTES))
    values[..., COLOR], values[..., LAYER] = 1.0, NO_TEXTURE
    if visual.kind == "vertex":
        colors = _unit_range(np.asarray(visual.vertex_colors))
        values[..., COLOR] = (_as_shown(colors) if is_gltf else colors)[faces, :3]
    elif visual.kind == "face":
        values[..., COLOR] = np.asarray(visual.face_colors)[:, None, :3] / 255
    elif visual.kind == "texture":
        image, factor = _material(visual.material)
        layer = NO_TEXTURE if image is None else textures.layer(image)
        uv, tint = visual.uv, visual.vertex_attributes.get("color")
        if layer == NO_TEXTURE and factor is None and tint is None:
            return None
        if factor is not None:
            values[..., COLOR] *= factor
        if tint is not None:
            colors = _unit_range(np.asarray(tint))
            values[..., COLOR] *= (_as_shown(colors) if is_gltf else colors)[faces, :3]
        if layer != NO_TEXTURE and uv is not None:
            values[..., UV], values[..., LAYER] = np.asarray(uv)[faces], layer
    else:
        return None
    return values


def _material(material: Any) -> tuple[Any, Floats | None]:
    """The Pillow image and the colour `(3,)` of a material, each None where it has none."""
    if hasattr(material, "baseColorFactor"):
        image, color = material.baseColorTexture, material.baseColorFactor
        return image, None if color is None else _as_shown(_unit_range(np.asarray(color)[:3]))
    image = getattr(material, "image", None)
    return image, _unit_range(np.asarray(material.main_color))[:3] if image is None else None


def _unit_range(values: NDArray[Any]) -> Floats:
    """Colours in 0..1, from integers or floats."""
    if np.issubdtype(values.dtype, np.integer):
        return values / np.iinfo(values.dtype).max
    return np.clip(values.astype(np.float64), 0, 1)


def _as_shown(linear: Floats) -> Floats:
    """Linear light in 0..1 as sRGB (IEC 61966-2-1)."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _joined(parts: list[Part], textures: tuple[torch.Tensor, ...]) -> Surface | None:
    """All parts as one surface; None where they have no area."""
    triangles = near_origin(np.concatenate([part.triangles for part in parts]))
    edges = np.diff(triangles, axis=1)
    areas = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1)
    if not len(areas) or not 0 < areas.astype(np.float32).sum() < np.inf:
        return None
    attributes = None
    if any(part.attributes is not None for part in parts):
        neutral = np.array([NEUTRAL_COLOR] * 3 + [0.0, 0.0, NO_TEXTURE])
        attributes = np.concatenate(
            [
                np.broadcast_to(neutral, (len(part.triangles), 3, NUM_ATTRIBUTES))
                if part.attributes is None
                else part.attributes
                for part in parts
            ]
        )
    return Surface(
        torch.from_numpy(triangles.astype(np.float32)),
        None if attributes is None else torch.from_numpy(attributes.astype(np.float32)),
        textures,
    )


def sampled(surface: Surface) -> PointCloud:
    """`MAX_POINTS` points of a surface whose area is not 0, evenly, and the surface with them."""
    points, normals, baked = sample_surface(surface.triangles, MAX_POINTS, surface.attributes)
    colors = None if baked is None else surface.colors(baked)
    return PointCloud(points, colors, normals, surface)
