"""NPY and NPZ, which are never unpickled and never allocate more than they hold.

Axes: T steps in time, C channels.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from omnialign import ReadError

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"

Array = np.ndarray[Any, Any]


def read_npy(source: Any, file: IO[bytes]) -> Array:
    """The array of an NPY file; its header may not promise more than it holds."""
    try:
        version = npy.read_magic(file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = header(file)
        if dtype.hasobject:
            raise ReadError(
                source, "wanted numbers, found Python objects, which are never unpickled"
            )
        needed = math.prod(shape) * dtype.itemsize
        data = file.read(needed)
        if len(data) < needed:
            raise ReadError(
                source,
                f"its header promises {shape} of {dtype}, {needed} bytes; it is cut off at "
                f"{len(data)}",
            )
        values = np.frombuffer(data, dtype)
        return values.reshape(shape, order="F" if fortran_order else "C")
    except ReadError:
        raise
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ReadError(source, f"wanted a sound NPY array; {error}") from error


def read_npz(source: Any, data: bytes, max_values: int) -> tuple[Array, Any, Any]:
    """`values`, and `sample_rate_hz` and `channels` where they are there.

    A single array under any other name is taken for the values.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise ReadError(source, f"wanted an NPZ archive; {error}") from error
    members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
    extras = ("sample_rate_hz", "channels")
    others = [name for name in members if name not in extras]
    name = "values" if "values" in members else others[0] if len(others) == 1 else None
    if name is None:
        found = ", ".join(sorted(members)) or "none"
        raise ReadError(source, f"wanted an array 'values' in the NPZ, found {found}")

    def member(key: str) -> Array:
        info = members[key]
        if info.file_size > max_values * 8:
            raise ReadError(source, f"'{key}' unpacks to {info.file_size} bytes, too many")
        try:
            with archive.open(info) as file:
                return read_npy(source, file)
        except (zipfile.BadZipFile, RuntimeError, zlib.error) as error:
            raise ReadError(source, f"cannot unpack '{key}': {error}") from error

    rate, channels = (member(key) if key in members else None for key in extras)
    if rate is not None and rate.size != 1:
        raise ReadError(source, f"wanted one number in 'sample_rate_hz', found {rate.size}")
    return member(name), None if rate is None else rate.item(), channels
