"""Brings files and arrays to a `Waveform`.

Axes: C channels, T samples in time.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from omnialign import ReadError, Segment
from omnialign_audio.decoding import decode, decode_windows
from omnialign_audio.limits import check_length, check_rate_and_channels, checked
from omnialign_audio.waveform import Waveform

FULL_SCALE = {"int8": 1 << 7, "int16": 1 << 15, "int32": 1 << 31}
FORMS = (
    "a path, bytes or open binary file of sound or of a video, (array, sample_rate_hz), "
    "{'array': …, 'sampling_rate': …}, or a Waveform"
)


def read(source: Any) -> Waveform:
    """As `Modality.read`."""
    with _opened(source) as file:
        return _from_memory(source) if file is None else decode(source, file)


def read_windows(source: Any, seconds: float) -> Iterator[Segment[Waveform]]:
    """As `Modality.read_segments`."""
    with _opened(source) as file:
        if file is None:
            yield from _from_memory(source).split(seconds)
        else:
            yield from decode_windows(source, file, seconds)


@contextmanager
def _opened(source: Any) -> Generator[BinaryIO | None]:
    """A path, bytes or an open file as an open file; None for anything else."""
    if isinstance(source, str | PathLike):
        try:
            file = Path(source).open("rb")  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise ReadError(source, f"wanted an audio file; {error}") from error
        with file:
            yield file
    elif isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(source)
    else:
        yield source if hasattr(source, "read") and hasattr(source, "seek") else None


def _from_memory(source: Any) -> Waveform:
    if isinstance(source, Waveform):
        return from_array(source, source.values, source.sample_rate_hz)
    if isinstance(source, Mapping):
        values = source.get("array", source.get("values"))
        rate = source.get("sampling_rate", source.get("sample_rate_hz"))
        if values is None or rate is None:
            found = ", ".join(map(repr, source)) or "no key"
            raise ReadError(
                source,
                f"wanted the keys 'array' and 'sampling_rate' (or our own names), found {found}",
            )
        return from_array(source, values, rate)
    if isinstance(source, tuple) and len(source) == 2:
        return from_array(source, *source)
    raise ReadError(source, f"wanted {FORMS}")


def from_array(source: Any, values: Any, sample_rate_hz: Any) -> Waveform:
    """Values `(T,)` or `(C, T)` of float or integer PCM."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    else:
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ReadError(source, f"wanted an array (T,) or (C, T); {error}") from error
    if array.ndim not in (1, 2) or not array.size:
        raise ReadError(source, f"wanted an array (T,) or (C, T), found the shape {array.shape}")
    array = array[None] if array.ndim == 1 else array
    try:
        rate = int(sample_rate_hz)
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if rate != sample_rate_hz:
        raise ReadError(source, f"wanted a whole number of Hz, found the rate {sample_rate_hz!r}")
    check_rate_and_channels(source, rate, len(array))
    check_length(source, array.shape[1], len(array), rate)
    return checked(source, torch.from_numpy(to_float(source, array)), rate)


def to_float(source: Any, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Integer PCM scaled to -1..1; float as it is."""
    name = array.dtype.name
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if name == "uint8":
        return (array.astype(np.float32) - 128) / 128
    if name in FULL_SCALE:
        return (array / FULL_SCALE[name]).astype(np.float32)
    raise ReadError(
        source, f"wanted float, uint8, {', '.join(FULL_SCALE)} values, found {name}: no known scale"
    )
