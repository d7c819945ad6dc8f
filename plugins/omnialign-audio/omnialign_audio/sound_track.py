"""The sound track of a container (a video, an M4A), decoded by FFmpeg through PyAV.

Axes: C channels, T samples in time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import torch
from av.audio.stream import AudioStream
from av.error import FFmpegError

from omnialign import ReadError
from omnialign_audio.limits import check_rate_and_channels, checked
from omnialign_audio.waveform import Waveform

MIN_GAP_SECONDS = 0.1
"""Between what the time stamps say and the sound so far: a longer one is filled with silence, a
shorter one is jitter."""
BLOCK_SECONDS = 1.0


def sound_track(source: Any, file: BinaryIO, format: str) -> Iterator[Waveform]:
    """The best track by FFmpeg's measure, in stretches, from the start of the file.

    Where the track starts later than the file or pauses, there is silence, so that a second of the
    sound is the same second of the pictures.
    """
    try:
        with av.open(file, "r", format=format) as container:
            stream = container.streams.best("audio")
            if not isinstance(stream, AudioStream):
                kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
                raise ReadError(source, f"it has no sound track, only: {kinds}; wanted sound")
            rate, channels = stream.rate, stream.channels
            check_rate_and_channels(source, rate, channels)
            origin_seconds = (container.start_time or 0) / av.time_base
            # interleaved: PyAV miscounts the planes of eight channels
            to_float = av.AudioResampler("flt", rate=rate)
            num_given = 0
            for frame in container.decode(stream):
                if frame.time is not None:
                    gap = round((frame.time - origin_seconds) * rate) - num_given
                    if gap > MIN_GAP_SECONDS * rate:
                        num_given += gap
                        yield from _silence(gap, channels, rate)
                for part in to_float.resample(frame):
                    num_given += part.samples
                    values = part.to_ndarray().reshape(-1, channels).T.copy()
                    yield checked(source, torch.from_numpy(values), rate)
    except (FFmpegError, OSError, ValueError) as error:
        if isinstance(error, ReadError):
            raise
        found = getattr(error, "strerror", None) or str(error)
        raise ReadError(source, f"{found}; is it damaged or cut short?") from error
    if not num_given:
        raise ReadError(source, f"wanted sound, found 0 seconds at {rate} Hz")


def _silence(num_frames: int, num_channels: int, sample_rate_hz: int) -> Iterator[Waveform]:
    block = max(1, round(BLOCK_SECONDS * sample_rate_hz))
    for start in range(0, num_frames, block):
        length = min(block, num_frames - start)
        yield Waveform(torch.zeros(num_channels, length), sample_rate_hz)
