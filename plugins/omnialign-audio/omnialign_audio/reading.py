"""Brings files and arrays to a `Waveform`.

Axes: C channels, T samples in time.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch

from omnialign import ReadError
from omnialign_audio.waveform import Waveform

MAX_SECONDS = 3600.0
MAX_VALUES = 400_000_000
"""C · T: an hour of stereo at 48 kHz, 1.6 GB."""
MAX_CHANNELS = 64
MAX_SAMPLE_RATE_HZ = 768_000
BLOCK_VALUES = 1 << 22
"""C · T decoded at a time."""

FULL_SCALE = {"int8": 1 << 7, "int16": 1 << 15, "int32": 1 << 31}
FORMS = (
    "a path, bytes or open binary file of WAV, FLAC, OGG or MP3, (array, sample_rate_hz), "
    "{'array': …, 'sampling_rate': …}, or a Waveform"
)


def read(source: Any) -> Waveform:
    """As `Modality.read`."""
    if isinstance(source, Waveform):
        return from_array(source, source.values, source.sample_rate_hz)
    if isinstance(source, str | PathLike):
        try:
            with Path(source).open("rb") as file:
                return decode(source, file)
        except ReadError:
            raise
        except (OSError, ValueError) as error:
            raise ReadError(source, f"wanted an audio file; {error}") from error
    if isinstance(source, bytes | bytearray | memoryview):
        return decode(source, io.BytesIO(source))
    if hasattr(source, "read") and hasattr(source, "seek"):
        return decode(source, source)
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


def decode(source: Any, file: BinaryIO) -> Waveform:
    """Decodes what libsndfile reads, block by block: the header's length is not believed."""
    if not file.read(1):
        raise ReadError(source, "wanted audio, found an empty file")
    file.seek(-1, io.SEEK_CUR)
    try:
        with soundfile.SoundFile(file) as sound:
            check_rate_and_channels(source, sound.samplerate, sound.channels)
            blocks: list[np.ndarray[Any, Any]] = []
            num_frames = 0
            while True:
                block = sound.read(BLOCK_VALUES // sound.channels, dtype="float32", always_2d=True)
                if not len(block):
                    break
                blocks.append(block)
                num_frames += len(block)
                check_length(source, num_frames, sound.channels, sound.samplerate)
            rate = sound.samplerate
    except (soundfile.LibsndfileError, OSError, EOFError) as error:
        raise ReadError(
            source,
            f"wanted WAV, FLAC, OGG or MP3; {error}; convert it, or record it again",
        ) from error
    if not blocks:
        raise ReadError(source, f"wanted sound, found 0 seconds at {rate} Hz")
    return finite(source, torch.from_numpy(np.concatenate(blocks).T.copy()), rate)


def stretch_of(path: str, start: int, stop: int) -> Waveform:
    """The samples from `start` to before `stop` of a file, as `decode` would give them."""
    try:
        with soundfile.SoundFile(path) as sound:
            sound.seek(start)
            values = sound.read(stop - start, dtype="float32", always_2d=True)
            rate = sound.samplerate
    except (soundfile.LibsndfileError, OSError) as error:
        raise ReadError(path, f"wanted the samples {start} to {stop}; {error}") from error
    if len(values) != stop - start:
        raise ReadError(path, f"wanted the samples {start} to {stop}, found {len(values)}")
    return finite(path, torch.from_numpy(values.T.copy()), rate)


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
    return finite(source, torch.from_numpy(to_float(source, array)), rate)


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


def check_rate_and_channels(source: Any, sample_rate_hz: int, num_channels: int) -> None:
    if not 1 <= sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise ReadError(
            source, f"wanted a rate of 1 to {MAX_SAMPLE_RATE_HZ} Hz, found {sample_rate_hz}"
        )
    if num_channels > MAX_CHANNELS:
        raise ReadError(
            source,
            f"wanted at most {MAX_CHANNELS} channels, found {num_channels}; arrays are (C, T)",
        )


def check_length(source: Any, num_frames: int, num_channels: int, sample_rate_hz: int) -> None:
    too_long = num_frames > MAX_SECONDS * sample_rate_hz
    if too_long or num_frames * num_channels > MAX_VALUES:
        raise ReadError(
            source,
            f"wanted at most {MAX_SECONDS:.0f} s and {MAX_VALUES} values, found more; "
            "cut it into parts",
        )


def finite(source: Any, values: torch.Tensor, sample_rate_hz: int) -> Waveform:
    if not values.isfinite().all():
        count = int((~values.isfinite()).sum())
        raise ReadError(source, f"wanted finite values, found {count} that are NaN or infinite")
    return Waveform(values, sample_rate_hz)
