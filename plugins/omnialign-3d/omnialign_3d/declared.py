"""What an item says of itself: its form, and its size before anything is allocated."""

from __future__ import annotations

import io
import json
import re
import struct
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

MAX_FILE_BYTES = 128 * 2**20
MAX_HEADER_BYTES = 64 * 2**10
MAX_GLTF_VALUES = 12_000_000
"""Vertices and indices that a glTF's primitives unfold to; several may share one buffer."""
MAX_GLTF_DEPTH = 256
"""Nodes above a node."""
SNIFFED_BYTES = 4096

_PLY_BYTES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16", "float16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "int64", "uint64", "float64"), 8),
}
_TRIMESH_TYPES = {"Trimesh", "Scene", "PointCloud"}
_STL_HEADER_BYTES, _STL_TRIANGLE_BYTES = 84, 50
_READ_EXTENSIONS = {
    "EXT_texture_webp",
    "KHR_animation_pointer",
    "KHR_lights_punctual",
    "KHR_xmp_json_ld",
    *(
        f"KHR_materials_{name}"
        for name in (
            *("anisotropy", "clearcoat", "dispersion", "emissive_strength", "ior", "iridescence"),
            *("diffuse_transmission", "sheen", "specular", "transmission", "unlit", "variants"),
            "volume",
        )
    ),
}
"""That may be required: shapes and base colours are right with them."""
_UNREAD_USED = {"EXT_mesh_gpu_instancing"}
"""Refused even where not required: most of the copies would be missing."""
_FLOAT32 = 5126
"""A component type of glTF."""


def sniff(head: bytes, num_bytes: int) -> str | None:
    """The format (a suffix without its dot) of a file of `num_bytes` that starts with `head`.

    Only forms that cannot be mistaken: an OBJ, which has no mark of its own, gives None.
    """
    if head.startswith((b"ply\n", b"ply\r")):
        return "ply"
    if head.startswith(b"glTF"):
        return "glb"
    if head.startswith(b"# .PCD"):
        return "pcd"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if re.match(rb"C?OFF\s", head):
        return "off"
    if head.startswith(b"solid") and b"facet" in head[:1024]:
        return "stl"
    if head.lstrip().startswith(b"{") and b'"asset"' in head and b'"version"' in head:
        return "gltf"
    if len(head) >= _STL_HEADER_BYTES:
        (count,) = struct.unpack_from("<I", head, _STL_HEADER_BYTES - 4)
        if count and num_bytes == _STL_HEADER_BYTES + count * _STL_TRIANGLE_BYTES:
            return "stl"
    return None


def is_trimesh(source: Any) -> bool:
    """Whether `source` is a mesh, scene or point cloud of trimesh; imports nothing."""
    return any(
        kind.__name__ in _TRIMESH_TYPES and kind.__module__.split(".")[0] == "trimesh"
        for kind in type(source).__mro__
    )


def looks_like_obj(head: bytes) -> bool:
    """Whether a line is a vertex of a Wavefront OBJ."""
    return re.search(rb"^v[ \t]+[-+.\d]", head, re.MULTILINE) is not None


def check_declared(data: bytes, kind: str) -> None:
    """Refuses a file whose header promises more than it holds.

    Raises:
        ValueError: says what is promised, and what is there.
    """
    check = {
        "ply": _check_ply,
        "off": _check_off,
        "stl": _check_stl,
        "glb": _check_glb,
        "gltf": _check_gltf,
    }
    if kind in check:
        check[kind](data)


def _check_ply(data: bytes) -> None:
    found = re.search(rb"^end_header\r?\n", data[:MAX_HEADER_BYTES], re.MULTILINE)
    if not data.startswith(b"ply") or not found:
        raise ValueError("it is no PLY file: it wants a header from 'ply' to 'end_header'")
    needed_bytes, count, is_text = 0, 0, b"format ascii" in data[: found.start()]
    for line in data[: found.start()].decode("latin-1").splitlines():
        match line.split():
            case ["element", name, number]:
                count = int(number) if number.isdecimal() else -1
                if count < 0:
                    raise ValueError(f"its header says there are '{number}' of '{name}'")
                if name == "vertex" and count == 0:
                    raise ValueError("its header says there are 0 points")
            case ["property", "list", length_type, *_]:
                needed_bytes += count * (2 if is_text else _PLY_BYTES.get(length_type, 1))
            case ["property", value_type, _]:
                needed_bytes += count * (2 if is_text else _PLY_BYTES.get(value_type, 1))
            case _:
                pass
    # A text needs a digit and a blank for each value; the last blank may be missing.
    _compare(needed_bytes - is_text, len(data) - found.end())


def _check_off(data: bytes) -> None:
    text = re.sub(rb"#[^\n]*", b"", data[:MAX_HEADER_BYTES])
    found = re.match(rb"\s*C?OFF\s+(\d+)\s+(\d+)", text)
    if not found:
        raise ValueError("it is no OFF file: it wants 'OFF' and the numbers of vertices and faces")
    num_vertices, num_faces = (int(number) for number in found.groups())
    _compare(6 * num_vertices + 8 * num_faces - 1, len(data))


def _check_stl(data: bytes) -> None:
    if data.lstrip()[:5].lower() == b"solid" and b"facet" in data:
        return
    if len(data) < _STL_HEADER_BYTES:
        raise ValueError("it is no STL file: it wants 'solid' or a header of 84 bytes")
    (count,) = struct.unpack_from("<I", data, _STL_HEADER_BYTES - 4)
    _compare(_STL_HEADER_BYTES + count * _STL_TRIANGLE_BYTES, len(data))


def _check_glb(data: bytes) -> None:
    if len(data) < 20 or not data.startswith(b"glTF"):
        raise ValueError("it is no GLB file: it wants a header of 20 bytes that starts with 'glTF'")
    total, chunk = struct.unpack_from("<8xII", data)
    _compare(max(total, 20 + chunk), len(data))
    _check_gltf(data[20 : 20 + chunk])


def _check_gltf(text: bytes) -> None:
    try:
        tree: dict[str, Any] = json.loads(text)
        accessors = tree.get("accessors", [])
        unread = set(tree.get("extensionsRequired", [])) - _READ_EXTENSIONS
        unread |= set(tree.get("extensionsUsed", [])) & _UNREAD_USED
        counts = [int(accessor["count"]) for accessor in accessors]
        unfolded = sum(c for c, a in zip(counts, accessors, strict=True) if "bufferView" not in a)
        for mesh in tree.get("meshes", []):
            for primitive in mesh["primitives"]:
                unfolded += counts[primitive["attributes"]["POSITION"]]
                unfolded += counts[primitive["indices"]] if "indices" in primitive else 0
                unread |= _unread_values(primitive, accessors)
        _check_depth(tree.get("nodes", []))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"it is no sound glTF file ({type(error).__name__}: {error})") from error
    if unread:
        raise ValueError(f"it uses {', '.join(sorted(unread))}, not read; save it without")
    if "nodes" in tree and not tree.get("scenes"):
        raise ValueError("it has nodes but no scene that shows them")
    if unfolded > MAX_GLTF_VALUES or min(counts, default=0) < 0:
        raise ValueError(
            f"it unfolds to {unfolded} vertices and indices; 0 to {MAX_GLTF_VALUES} are read"
        )


def _unread_values(primitive: dict[str, Any], accessors: list[dict[str, Any]]) -> set[str]:
    """What trimesh would take for other values than are meant."""
    places, uv = primitive["attributes"]["POSITION"], primitive["attributes"].get("TEXCOORD_0")
    used = [accessors[i] for i in (places, uv, primitive.get("indices")) if i is not None]
    found = {"sparse accessors"} if any("sparse" in accessor for accessor in used) else set[str]()
    if uv is not None and accessors[uv].get("componentType") != _FLOAT32:
        found.add("texture coordinates in integers")
    return found


def _check_depth(nodes: list[dict[str, Any]]) -> None:
    parents = {child: i for i, node in enumerate(nodes) for child in node.get("children", [])}
    for node in range(len(nodes)):
        above: int | None = node
        for _ in range(MAX_GLTF_DEPTH):
            above = parents.get(above)
            if above is None:
                break
        else:
            raise ValueError(f"its nodes form a circle, or are more than {MAX_GLTF_DEPTH} deep")


def _compare(needed_bytes: int, found_bytes: int) -> None:
    if needed_bytes > found_bytes:
        raise ValueError(
            f"its header promises data of at least {needed_bytes} bytes, but there are "
            f"{found_bytes}; the file is cut off or its header is wrong"
        )


def read_npy(data: bytes) -> NDArray[Any]:
    """The array of an NPY file, a view of `data`; no pickle is read.

    Raises:
        ValueError: it is no NPY file, holds objects, or promises more than it holds.
    """
    file = io.BytesIO(data)
    try:
        version = npy_format.read_magic(file)
        reader = {1: npy_format.read_array_header_1_0, 2: npy_format.read_array_header_2_0}
        shape, is_fortran, dtype = reader[version[0]](file)
    except (ValueError, KeyError, EOFError) as error:
        raise ValueError(f"it is no NPY file of numbers ({error})") from error
    if dtype.kind not in "iuf":
        raise ValueError(f"it wants an array of numbers; found {dtype}")
    _compare(prod(shape) * dtype.itemsize, len(data) - file.tell())
    values = np.frombuffer(data, dtype, count=prod(shape), offset=file.tell())
    return values.reshape(shape, order="F" if is_fortran else "C")
