"""Brings arrays, tables and their files to a `Series`.

Axes: T steps in time, C channels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omnialign import ReadError
from omnialign_timeseries import array_files, tables
from omnialign_timeseries.series import Series

MAX_VALUES = 100_000_000
"""T · C: 400 MB of float32."""
MAX_CHANNELS = 4096
MAX_FILE_BYTES = 1 << 30
SUFFIX_FORMATS = {".npy": "NPY", ".npz": "NPZ", ".parquet": "Parquet"}
FORMS = (
    "a path, bytes or open binary file of NPY, NPZ, CSV or Parquet, an array (T, C) or (T,), "
    "(array, sample_rate_hz), {'values': …, 'sample_rate_hz': …, 'channels': …}, a DataFrame, "
    "or a Series"
)

Array = np.ndarray[Any, Any]


def read(source: Any) -> Series:
    """As `Modality.read`."""
    if isinstance(source, Series):
        return series(source, source.values, source.sample_rate_hz, source.channels)
    if isinstance(source, str | PathLike):
        return from_bytes(source, file_bytes(source), Path(source).suffix.lower())
    if isinstance(source, bytes | bytearray | memoryview):
        return from_bytes(source, bytes(source))
    if hasattr(source, "read") and hasattr(source, "seek"):
        return from_bytes(source, limited(source, source.read(MAX_FILE_BYTES + 1)))
    if isinstance(source, Mapping):
        if "values" not in source:
            found = ", ".join(map(repr, source)) or "no key"
            raise ReadError(source, f"wanted the key 'values', found {found}")
        rate, names = source.get("sample_rate_hz"), source.get("channels")
        return series(source, source["values"], rate, names)
    if hasattr(source, "columns") and hasattr(source, "to_numpy"):
        names = [str(name) for name in source.columns]
        tables.check_names(source, names)
        columns = {name: np.asarray(source[key]) for name, key in zip(names, source, strict=True)}
        columns = tables.with_clock(columns, getattr(source, "index", None))
        return series(source, *tables.regular(source, columns, MAX_VALUES))
    if isinstance(source, tuple) and len(source) == 2:
        return series(source, *source)
    if isinstance(source, torch.Tensor | np.ndarray | list):
        return series(source, source)
    raise ReadError(source, f"wanted {FORMS}")


def file_bytes(source: str | PathLike[str]) -> bytes:
    """The content of a file."""
    try:
        with Path(source).open("rb") as file:
            return limited(source, file.read(MAX_FILE_BYTES + 1))
    except ReadError:
        raise
    except (OSError, ValueError) as error:
        raise ReadError(source, f"wanted a time series file; {error}") from error


def limited(source: Any, data: Any) -> bytes:
    if not isinstance(data, bytes):
        raise ReadError(source, f"wanted a file opened in binary mode, found {type(data).__name__}")
    if len(data) > MAX_FILE_BYTES:
        raise ReadError(source, f"wanted at most {MAX_FILE_BYTES >> 20} MiB; cut it into parts")
    return data


def from_bytes(source: Any, data: bytes, suffix: str = "") -> Series:
    """Decides the format by the first bytes; what has no magic number is CSV."""
    if not data:
        raise ReadError(source, "wanted a time series, found an empty file")
    if data.startswith(array_files.NPY_MAGIC):
        return series(source, array_files.read_npy(source, io.BytesIO(data)))
    if data.startswith(array_files.ZIP_MAGIC):
        return series(source, *array_files.read_npz(source, data, MAX_VALUES))
    if data.startswith(tables.PARQUET_MAGIC):
        return series(source, *tables.read_parquet(source, data, MAX_VALUES))
    if suffix in SUFFIX_FORMATS:
        raise ReadError(
            source, f"wanted {SUFFIX_FORMATS[suffix]}, found a file that starts with {data[:8]!r}"
        )
    return series(source, *tables.read_csv(source, data, MAX_VALUES))


def series(source: Any, values: Any, sample_rate_hz: Any = None, channels: Any = None) -> Series:
    """Checks values, rate and names, and fills gaps.

    NaN is a gap: it is filled by a straight line between its neighbours in time, or by the nearest
    value at the ends. Infinite values, and a channel of nothing but gaps, are refused.
    """
    array = as_array(source, values)
    names = channel_names(source, channels, array.shape[1])
    gaps = np.isnan(array)
    if np.isinf(array).any():
        raise ReadError(source, "wanted finite values (NaN for a gap), found infinite ones")
    for c in np.flatnonzero(gaps.any(0)):
        gap = gaps[:, c]
        if gap.all():
            name = f" ({names[c]!r})" if names else ""
            raise ReadError(source, f"channel {c}{name} holds no value at all; leave it out")
        array[gap, c] = np.interp(np.flatnonzero(gap), np.flatnonzero(~gap), array[~gap, c])
    return Series(torch.from_numpy(array), rate(source, sample_rate_hz), names)


def as_array(source: Any, values: Any) -> Array:
    """`(T, C)` float32 of its own memory."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().float() if values.is_floating_point() else values.cpu()
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ReadError(source, f"wanted an array (T, C) or (T,); {error}") from error
    if array.ndim not in (1, 2) or not array.size:
        raise ReadError(source, f"wanted an array (T, C) or (T,), found the shape {array.shape}")
    if array.dtype.kind not in "fiub":
        raise ReadError(source, f"wanted numbers, found values of type {array.dtype}")
    array = array[:, None] if array.ndim == 1 else array
    if array.size > MAX_VALUES:
        raise ReadError(source, f"wanted at most {MAX_VALUES} values, found {array.size}")
    if array.shape[1] > MAX_CHANNELS:
        raise ReadError(
            source,
            f"wanted at most {MAX_CHANNELS} channels, found {array.shape[1]}; arrays are (T, C)",
        )
    with np.errstate(over="ignore"):
        return array.astype(np.float32, order="C")


def channel_names(source: Any, channels: Any, num_channels: int) -> tuple[str, ...] | None:
    if channels is None:
        return None
    listed = isinstance(channels, Sequence | np.ndarray) and not isinstance(channels, str | bytes)
    if not listed or len(channels) != num_channels:
        found = len(channels) if listed else repr(channels)
        raise ReadError(source, f"wanted {num_channels} channel names, found {found}")
    return tuple(str(name) for name in channels)


def rate(source: Any, sample_rate_hz: Any) -> float | None:
    if sample_rate_hz is None:
        return None
    try:
        value = float(sample_rate_hz)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 < value < math.inf:
        raise ReadError(source, f"wanted a rate above 0 Hz, found {sample_rate_hz!r}")
    return value
