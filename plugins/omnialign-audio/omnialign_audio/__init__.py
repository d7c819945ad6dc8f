"""Sound for OmniAlign.

Axes: C channels, T samples in time.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from omnialign import Claim, Modality, Preview, Segment, Unread, hookimpl
from omnialign_audio.sniffing import HEAD_BYTES, is_audio
from omnialign_audio.waveform import Waveform

__all__ = ["Audio", "Waveform"]

PREVIEW_SECONDS = 5.0


class Audio(Modality[Waveform]):
    """Sound: `(C, T)` float32 values, full scale at -1 and 1, with their rate in Hz.

    Reads WAV, AIFF, FLAC, OGG (Vorbis, Opus), MP3 and M4A, the sound track of a video, and arrays
    with their rate; 8-, 16- and 32-bit integers are scaled. Refuses empty sounds, non-finite
    values, more than 64 channels, more than an hour at once and a day in windows. The length in a
    header is not believed: what decodes is the sound.
    """

    name = "audio"
    suffixes = frozenset(
        {".wav", ".aif", ".aiff", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a"}
    )
    long_input = "windows"
    templates = ("the sound of {}", "a recording of {}", "{}")
    augmentations: ClassVar = {
        "crop": "omnialign_audio.augmentations:Crop",
        "shift": "omnialign_audio.augmentations:Shift",
        "speed": "omnialign_audio.augmentations:Speed",
        "gain": "omnialign_audio.augmentations:Gain",
        "noise": "omnialign_audio.augmentations:Noise",
        "equalizer": "omnialign_audio.augmentations:Equalizer",
        "time_mask": "omnialign_audio.augmentations:TimeMask",
        "frequency_mask": "omnialign_audio.augmentations:FrequencyMask",
    }
    encoders: ClassVar = {
        "conv": "omnialign_audio.encoders:SpectrogramConv",
        "transformer": "omnialign_audio.encoders:SpectrogramTransformer",
    }
    default_encoder = "conv"

    def read(self, source: Any) -> Waveform:
        from omnialign_audio.reading import read

        return read(source)

    def open(self, source: Any, resolution: float | None = None) -> Waveform | Unread[Waveform]:
        """A WAV or FLAC of more than half a minute comes undecoded."""
        from omnialign_audio.recording import recording

        return recording(source) or self.read(source)

    def read_segments(self, source: Any, window: float) -> Iterable[Segment[Waveform]]:
        """Files are decoded window by window, so these may last up to a day."""
        from omnialign_audio.reading import read_windows

        return read_windows(source, window)

    def claim(self, source: Any) -> Claim:
        if isinstance(source, Waveform):
            return Claim.OWNS
        if isinstance(source, bytes | bytearray | memoryview):
            return Claim.OWNS if is_audio(bytes(source[:HEAD_BYTES])) else Claim.NO
        if hasattr(source, "read") and hasattr(source, "seek"):
            position = source.tell()
            head = source.read(HEAD_BYTES)
            source.seek(position)
            return Claim.OWNS if isinstance(head, bytes) and is_audio(head) else Claim.NO
        return super().claim(source)

    def segments(self, sample: Waveform, window: float) -> list[Segment[Waveform]]:
        """Consecutive windows of `window` seconds; the last may be shorter.

        A rest of less than a tenth of a window is left out, unless it is all there is.
        """
        return sample.split(window)

    def preview(self, sample: Waveform) -> Preview:
        """The first seconds as a mono 16-bit WAV."""
        import soundfile

        num_frames = math.ceil(PREVIEW_SECONDS * sample.sample_rate_hz)
        values = sample.values[:, :num_frames].mean(0).clamp(-1, 1)
        file = io.BytesIO()
        soundfile.write(file, values.numpy(), sample.sample_rate_hz, "PCM_16", format="WAV")
        return Preview("audio/wav", file.getvalue())

    def example_samples(self, n: int) -> Sequence[Waveform]:
        """Stereo tones of 1.5 s that rise from 220 Hz and beat at different speeds."""
        import torch

        seconds = torch.arange(24_000) / 16_000
        tones = [
            0.5
            * torch.sin(2 * math.pi * 220 * 1.25**i * seconds)
            * torch.stack([torch.sin(2 * math.pi * (i + 1) * seconds), 1 - seconds / 2])
            for i in range(n)
        ]
        return [Waveform(tone, 16_000) for tone in tones]


@hookimpl
def omnialign_modalities() -> Sequence[Modality[Any]]:
    """The modality `audio`."""
    return [Audio()]
