"""The Point Cloud Data format of the Point Cloud Library, text and binary.

Axes: N points.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omnialign_3d.arrays import cloud_from_arrays
from omnialign_3d.cloud import PointCloud
from omnialign_3d.declared import MAX_HEADER_BYTES

_TYPES = {"F": {"4", "8"}, "I": {"1", "2", "4", "8"}, "U": {"1", "2", "4", "8"}}


@dataclass(frozen=True)
class _Header:
    names: list[str]
    dtypes: list[str]
    counts: list[int]
    num_points: int
    encoding: str


def read_pcd(data: bytes) -> PointCloud:
    """Fields `x y z`, and where present `rgb` or `rgba` (packed) and `normal_x normal_y normal_z`.

    Other fields and the viewpoint are left out; so are points that are not finite, by which
    ordered clouds mark what the sensor did not see.

    Raises:
        ValueError: a header that is wrong or promises more than there is, or `binary_compressed`.
    """
    header, body = _split(data)
    if missing := {"x", "y", "z"} - set(header.names):
        raise ValueError(f"it wants fields x, y and z; {', '.join(sorted(missing))} missing")
    if header.encoding == "binary":
        columns = _binary_columns(header, body)
    elif header.encoding == "ascii":
        columns = _text_columns(header, body)
    else:
        raise ValueError(
            f"its data are '{header.encoding}'; save it as ascii or binary, which are read"
        )
    color = next((columns[name] for name in ("rgb", "rgba") if name in columns), None)
    normals = [columns[f"normal_{axis}"] for axis in "xyz" if f"normal_{axis}" in columns]
    return cloud_from_arrays(
        np.column_stack([columns[axis] for axis in "xyz"]),
        None if color is None else _unpacked(color),
        np.column_stack(normals) if len(normals) == 3 else None,
    )


def _split(data: bytes) -> tuple[_Header, bytes]:
    found = re.search(rb"^DATA[ \t]+(\S+)[ \t]*\r?\n", data[:MAX_HEADER_BYTES], re.MULTILINE)
    if not found:
        raise ValueError("it is no PCD file: its header wants a line 'DATA ascii' or 'DATA binary'")
    lines = data[: found.start()].decode("latin-1").splitlines()
    words = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    try:
        names = words["FIELDS"]
        sizes, kinds = words["SIZE"], words["TYPE"]
        counts = [int(c) for c in words.get("COUNT", ["1"] * len(names))]
        area = int(words["WIDTH"][0]) * int(words["HEIGHT"][0])
        num_points = int(words["POINTS"][0]) if "POINTS" in words else area
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"its header lacks a sound {error}") from error
    if not len(names) == len(sizes) == len(kinds) == len(counts):
        raise ValueError("FIELDS, SIZE, TYPE and COUNT of its header differ in length")
    if any(size not in _TYPES.get(kind, ()) for size, kind in zip(sizes, kinds, strict=True)):
        raise ValueError(f"its header names an unknown type: SIZE {sizes}, TYPE {kinds}")
    if num_points != area or num_points < 1 or min(counts) < 1:
        raise ValueError(f"its header says {num_points} points, WIDTH × HEIGHT {area}")
    dtypes = [f"<{kind.lower()}{size}" for size, kind in zip(sizes, kinds, strict=True)]
    encoding = found.group(1).decode("latin-1")
    return _Header(names, dtypes, counts, num_points, encoding), data[found.end() :]


def _binary_columns(header: _Header, body: bytes) -> dict[str, NDArray[Any]]:
    widths = [int(d[2:]) * count for d, count in zip(header.dtypes, header.counts, strict=True)]
    _check_length(header.num_points * sum(widths), len(body))
    offsets = np.cumsum([0, *widths])
    rows = np.frombuffer(body, np.uint8, header.num_points * sum(widths))
    rows = rows.reshape(header.num_points, sum(widths))
    return {
        name: rows[:, start : start + int(dtype[2:])].copy().view(dtype)[:, 0]
        for name, dtype, start in zip(header.names, header.dtypes, offsets, strict=False)
    }


def _text_columns(header: _Header, body: bytes) -> dict[str, NDArray[Any]]:
    num_values = header.num_points * sum(header.counts)
    _check_length(2 * num_values - 1, len(body))
    words = body.split()
    if len(words) < num_values:
        raise ValueError(f"its header promises {num_values} values; found {len(words)}")
    values = np.array(words[:num_values], np.float64).reshape(header.num_points, -1)
    offsets = np.cumsum([0, *header.counts])
    return {
        name: values[:, start].astype(dtype)
        for name, dtype, start in zip(header.names, header.dtypes, offsets, strict=False)
    }


def _check_length(needed_bytes: int, found_bytes: int) -> None:
    if needed_bytes > found_bytes:
        raise ValueError(
            f"its header promises data of at least {needed_bytes} bytes; found {found_bytes}"
        )


def _unpacked(color: NDArray[Any]) -> NDArray[np.uint8]:
    """Bytes red, green, blue of 0xRRGGBB, which is stored as an integer or as a float's bits."""
    bits = color.astype(np.float32).view(np.uint32) if color.dtype.kind == "f" else color
    return np.stack([bits >> 16, bits >> 8, bits], axis=1).astype(np.uint8)
