"""Point clouds and meshes for OmniAlign.

Axes: N points, 3 the coordinates x, y, z (or red, green, blue).
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from omnialign import Claim, Modality, Preview, hookimpl
from omnialign_3d.cloud import Axis, PointCloud, convert_up

__all__ = ["Axis", "PointCloud", "PointClouds", "convert_up", "omnialign_modalities"]


class PointClouds(Modality[PointCloud]):
    """Things in space, as points on their surface.

    The canonical sample is a `PointCloud` of 1 to 4096 points in the file's own units and its own
    place, with colours and normals where the source has them, and with the triangles of a mesh. A
    glTF says that +y is up, and the sample keeps it; every other format says nothing, and the
    option `up` of encoders says what holds. `convert_up` turns a cloud.

    A mesh is sampled when it is read: 4096 points, evenly by area, the same ones every time, with
    the normals of its faces. Bare points are kept; of more than 4096, an even selection. Points and
    faces with coordinates that are not finite are left out, a cloud that is very far from the
    origin for its size is moved there, and a mesh without area is read as its corners.
    """

    name = "pointcloud"
    suffixes = frozenset((".ply", ".obj", ".off", ".stl", ".glb", ".gltf", ".npy", ".pcd"))
    long_input = "native"
    templates = ("a 3D model of a {}", "a point cloud of a {}", "{}")
    augmentations = {  # noqa: RUF012
        name: f"omnialign_3d.augmentations:{kind}"
        for name, kind in (
            ("rotation", "Rotation"),
            ("scale", "Scale"),
            ("flip", "Flip"),
            ("jitter", "Jitter"),
            ("dropout", "Dropout"),
        )
    }
    encoders = {  # noqa: RUF012
        "pointnet": "omnialign_3d.pointnet:PointNetEncoder",
        "transformer": "omnialign_3d.transformer:PointTransformerEncoder",
        "views": "omnialign_3d.views:ViewsEncoder",
    }
    default_encoder = "pointnet"

    def read(self, source: Any) -> PointCloud:
        """Reads a file (path, bytes, open binary file) or what people hold in memory.

        In memory: a `trimesh.Trimesh`, `Scene` or `PointCloud`; an array or tensor `(N, 3)` x y z,
        `(N, 6)` with colours or `(N, 9)` with colours and normals; a dict of `points`, `colors`,
        `normals`, `up`; a `PointCloud`. Colours lie in 0..1 or are integers. OBJ and glTF may name
        other files, which are read from the folder of the file only.

        Raises:
            ReadError: anything else, or a file that is broken, empty or too large.
        """
        from omnialign_3d.reading import read

        return read(source)

    def companions(self, path: Path) -> Sequence[Path]:
        """What an OBJ or a glTF names: materials, textures, buffers."""
        from omnialign_3d.linked import linked_files

        return linked_files(path)

    def claim(self, source: Any) -> Claim:
        """Owns its suffixes, its marks and the objects of trimesh; NPY could be a time series."""
        from omnialign_3d.declared import is_trimesh

        if isinstance(source, PathLike):
            suffix = Path(source).suffix.lower()
            kind = suffix[1:] if suffix in self.suffixes else None
        elif isinstance(source, PointCloud) or is_trimesh(source):
            return Claim.OWNS
        else:
            kind = _sniffed(source)
        return {None: Claim.NO, "npy": Claim.COULD}.get(kind, Claim.OWNS)

    def preview(self, sample: PointCloud) -> Preview:
        """A PNG of the cloud seen from two sides."""
        from omnialign_3d.preview import picture

        return Preview("image/png", picture(sample))

    def interactive_preview(self, sample: PointCloud) -> Preview:
        """A GLB of the triangles, or of the points where there are none or very many."""
        from omnialign_3d.interactive import glb

        return Preview("model/gltf-binary", glb(sample))

    def example_samples(self, n: int) -> Sequence[PointCloud]:
        """Boxes, balls, rings, … of different sizes; every third without colours."""
        from omnialign_3d.shapes import examples

        return examples(n)


def _sniffed(source: Any) -> str | None:
    """The format that the first bytes of bytes or of an open file tell."""
    from omnialign_3d.declared import SNIFFED_BYTES, sniff

    if isinstance(source, bytes | bytearray | memoryview):
        return sniff(bytes(source[:SNIFFED_BYTES]), len(source))
    if not (callable(getattr(source, "read", None)) and callable(getattr(source, "seek", None))):
        return None
    place = source.tell()
    head = source.read(SNIFFED_BYTES)
    num_bytes = source.seek(0, 2) - place
    source.seek(place)
    return sniff(head, num_bytes) if isinstance(head, bytes) else None


@hookimpl
def omnialign_modalities() -> Sequence[Modality[Any]]:
    """The one modality of this plugin."""
    return [PointClouds()]
