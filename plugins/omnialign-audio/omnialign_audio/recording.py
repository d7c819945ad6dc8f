"""A long file of which only a stretch is decoded.

Axes: C channels, T samples in time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import soundfile

from omnialign import ReadError, Segment, Unread
from omnialign_audio.decoding import stretch_of
from omnialign_audio.limits import MAX_STREAM_SECONDS, check_rate_and_channels
from omnialign_audio.waveform import Waveform, windows

LONG_SECONDS = 30.0
"""What is shorter is decoded at once, and can then be kept in memory."""
EXACT = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")
"""How the subtypes begin that read the same from any place: WAV's and FLAC's. Vorbis, Opus and MP3
read otherwise behind a seek."""


@dataclass(frozen=True)
class Recording(Unread[Waveform]):
    """The samples from `start` to before `stop` of a file."""

    name: str
    sample_rate_hz: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        """T."""
        return self.stop - self.start

    def stretch(self, start: int, stop: int) -> Recording:
        """From `start` to before `stop`, counted in samples from its own start."""
        return replace(self, start=self.start + start, stop=self.start + stop)

    def segments(self, window: float) -> list[Segment[Unread[Waveform]]]:
        rate = self.sample_rate_hz
        cuts = windows(self.length, rate, window)
        return [Segment(self.stretch(a, b), a / rate, b / rate) for a, b in cuts]

    def read(self) -> Waveform:
        return stretch_of(self.name, self.start, self.stop)


def recording(source: Any) -> Recording | None:
    """A file that can be read from any place; None where it must be read whole.

    That is a short file, one of a codec that is not exact behind a seek, and one that ends
    elsewhere than its header says. Reading it whole says what is wrong with any other.
    """
    if not isinstance(source, str | PathLike):
        return None
    try:
        with soundfile.SoundFile(source) as sound:
            rate, length, channels = sound.samplerate, sound.frames, sound.channels
            check_rate_and_channels(source, rate, channels)
            in_bounds = LONG_SECONDS < length / rate <= MAX_STREAM_SECONDS
            if not in_bounds or not sound.subtype.startswith(EXACT):
                return None
            sound.seek(length - 1)
            ends_here = len(sound.read(2)) == 1
    except (soundfile.LibsndfileError, OSError, ReadError):
        return None
    return Recording(str(source), rate, 0, length) if ends_here else None
