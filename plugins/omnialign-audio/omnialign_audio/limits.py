"""Bounds against hostile files, and what is refused.

Axes: C channels, T samples in time.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from omnialign import ReadError
from omnialign_audio.waveform import Waveform

MAX_SECONDS = 3600.0
"""Held at once."""
MAX_VALUES = 400_000_000
"""C · T held at once: an hour of stereo at 48 kHz, 1.6 GB."""
MAX_STREAM_SECONDS = 24 * 3600.0
"""Of a file that is read window by window."""
MAX_CHANNELS = 64
MAX_SAMPLE_RATE_HZ = 768_000
MAX_MAGNITUDE = 1e9
"""Full scale is 1; the power spectrum of more would leave float32."""


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
    """Of what is held at once."""
    too_long = num_frames > MAX_SECONDS * sample_rate_hz
    if too_long or num_frames * num_channels > MAX_VALUES:
        raise ReadError(
            source,
            f"wanted at most {MAX_SECONDS:.0f} s and {MAX_VALUES} values at once, found more; "
            "cut it into parts",
        )


def checked(source: Any, values: Tensor, sample_rate_hz: int) -> Waveform:
    """Values `(C, T)` that can be computed with, as a waveform."""
    if not values.isfinite().all():
        count = int((~values.isfinite()).sum())
        raise ReadError(source, f"wanted finite values, found {count} that are NaN or infinite")
    if values.abs().max() > MAX_MAGNITUDE:
        most = float(values.abs().max())
        raise ReadError(
            source, f"wanted values of at most {MAX_MAGNITUDE:g} (full scale is 1), found {most:g}"
        )
    return Waveform(values, sample_rate_hz)
