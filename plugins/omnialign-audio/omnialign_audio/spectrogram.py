"""From waveforms to log-mel spectrograms.

Axes: C channels, T samples in time, M mel bands, F frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor, nn
from torchaudio.transforms import MelSpectrogram, Resample

from omnialign import OmniAlignError
from omnialign_audio.waveform import Waveform

FRAME_SECONDS = 0.025
MIN_CLIP_SECONDS = 0.1
FLOOR_DB = 80.0
"""Below the loudest band of a clip, everything is silence."""
MIN_PEAK_DB = -20.0
"""Of that band: a clip with less, 60 dB below full scale, is seen as quiet."""
MAX_RATE_DENOMINATOR = 1000
"""Of the ratio of two rates: exact for the usual ones, and it bounds the resampling filter."""


@dataclass(frozen=True)
class LogMel:
    """A waveform to its log-mel spectrogram `(1, M, F)` in -1..1, of a clip of fixed length.

    Channels are averaged. A shorter sound is followed by silence; of a longer one that was not cut
    into windows the start is taken. The loudest band of the clip is 1 and 80 dB below it is -1, so
    that loudness does not count.

    Another rate is resampled by a sinc filter with a Hann window (torchaudio's `Resample`, as it is
    by default). A hop is `round(hop_seconds * sample_rate_hz)` samples, F is the clip over it,
    rounded up, and the clip has `F * hop - 1` samples. Of these the power spectrum: a periodic Hann
    window of `round(0.025 * sample_rate_hz)` samples in the middle of an FFT of the next power of
    two, frames centred on their hop, ends padded by reflection. Then triangular filters on the HTK
    mel scale, not normalised by area, from 50 Hz to half the rate; `db = 10 log10(mel + 1e-10)`;
    and `max((db - max(peak, -20)) / 40 + 1, -1)` with the largest db of the clip as its peak.
    """

    sample_rate_hz: int
    clip_seconds: float
    num_mels: int
    hop_seconds: float

    @property
    def hop_length(self) -> int:
        return max(1, round(self.hop_seconds * self.sample_rate_hz))

    @property
    def num_frames(self) -> int:
        return math.ceil(self.clip_seconds * self.sample_rate_hz / self.hop_length)

    def __call__(self, waveform: Waveform) -> Tensor:
        mono = waveform.values.mean(0)
        if waveform.sample_rate_hz != self.sample_rate_hz:
            mono = resampler(waveform.sample_rate_hz, self.sample_rate_hz)(mono)
        length = self.num_frames * self.hop_length - 1
        clip = nn.functional.pad(mono[:length], (0, max(0, length - len(mono))))
        mel = mel_transform(self.sample_rate_hz, self.hop_length, self.num_mels)(clip)
        db = 10 * torch.log10(mel + 1e-10)
        return ((db - db.max().clamp(min=MIN_PEAK_DB)) / (FLOOR_DB / 2) + 1).clamp(min=-1)[None]


def checked_log_mel(
    sample_rate_hz: int, clip_seconds: float, num_mels: int, hop_seconds: float
) -> LogMel:
    """A `LogMel` of possible settings; raises `OmniAlignError` otherwise."""
    if sample_rate_hz < 1000:
        raise OmniAlignError(f"wanted sample_rate_hz of at least 1000, found {sample_rate_hz}")
    if clip_seconds < MIN_CLIP_SECONDS or hop_seconds <= 0:
        raise OmniAlignError(
            f"wanted clip_seconds of at least {MIN_CLIP_SECONDS} and hop_seconds above 0, found "
            f"{clip_seconds} and {hop_seconds}"
        )
    most = fft_length(sample_rate_hz) // 4
    if not 8 <= num_mels <= most:
        raise OmniAlignError(
            f"wanted num_mels from 8 to {most} at {sample_rate_hz} Hz, found {num_mels}"
        )
    return LogMel(sample_rate_hz, clip_seconds, num_mels, hop_seconds)


def fft_length(sample_rate_hz: int) -> int:
    return 1 << math.ceil(math.log2(FRAME_SECONDS * sample_rate_hz))


@lru_cache(maxsize=16)
def mel_transform(sample_rate_hz: int, hop_length: int, num_mels: int) -> MelSpectrogram:
    return MelSpectrogram(
        sample_rate_hz,
        n_fft=fft_length(sample_rate_hz),
        win_length=round(FRAME_SECONDS * sample_rate_hz),
        hop_length=hop_length,
        f_min=50.0,
        n_mels=num_mels,
    )


@lru_cache(maxsize=64)
def resampler(from_hz: int, to_hz: int) -> Resample:
    ratio = Fraction(from_hz, to_hz).limit_denominator(MAX_RATE_DENOMINATOR)
    return Resample(max(1, ratio.numerator), ratio.denominator)
