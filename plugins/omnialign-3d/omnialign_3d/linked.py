"""Files that an OBJ or a glTF names: materials, textures, buffers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

_URI = re.compile(rb'"uri"\s*:\s*"((?!data:)[^"]+)"')
_MATERIALS = re.compile(rb"^\s*mtllib\s+(.+?)\s*$", re.MULTILINE)
_TEXTURE = re.compile(rb"^\s*(?:map_\w+|bump|disp|decal|refl|norm)\s+(.+?)\s*$", re.MULTILINE)


def linked_files(path: Path) -> list[Path]:
    """Those that exist in the folder of the file at `path`; raises `OSError`."""
    suffix = path.suffix.lower()
    if suffix == ".gltf":
        return _existing(path, _URI.findall(path.read_bytes()))
    if suffix != ".obj":
        return []
    materials = _existing(path, _MATERIALS.findall(path.read_bytes()))
    textures = [t for m in materials for t in _existing(m, _TEXTURE.findall(m.read_bytes()))]
    return [*materials, *textures]


def _existing(path: Path, names: Iterable[bytes]) -> list[Path]:
    """A name may be quoted for the web, and have options or other names before it."""
    found: list[Path] = []
    for name in (raw.decode("utf-8", "surrogateescape") for raw in names):
        places = {path.parent / part for part in (name, unquote(name), *name.split())}
        found += [place for place in sorted(places) if place.is_file()]
    return list(dict.fromkeys(found))
