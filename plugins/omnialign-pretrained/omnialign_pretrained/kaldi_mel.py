"""Mel bands as Kaldi computes them, which ImageBind and LanguageBind take.

Axes: C channels, T samples in time, M mel bands, F frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SAMPLE_RATE_HZ = 16_000
"""Of ImageBind."""


def lengths(sample_rate_hz: int) -> tuple[int, int]:
    """A frame, 25 ms, and the hop to the next, 10 ms, in samples."""
    return sample_rate_hz * 25 // 1000, sample_rate_hz // 100


def first_channel(waveform: Any, sample_rate_hz: int) -> Tensor:
    """`(1, T)` at `sample_rate_hz`, T at least a frame, around the mean of all channels."""
    from torchaudio.functional import resample

    values: Tensor = waveform.values
    if waveform.sample_rate_hz != sample_rate_hz:
        values = resample(values, waveform.sample_rate_hz, sample_rate_hz)
    values = values[:1] - values.mean()
    frame, _ = lengths(sample_rate_hz)
    return nn.functional.pad(values, (0, max(0, frame - values.shape[1])))


def mel_bands(values: Tensor, num_mels: int, sample_rate_hz: int) -> Tensor:
    """The logarithm of the energy of `(1, T)` in `(F, M)`: 25 ms each 10 ms, a Hann window."""
    from torchaudio.compliance.kaldi import fbank

    return fbank(
        values,
        htk_compat=True,
        sample_frequency=sample_rate_hz,
        use_energy=False,
        window_type="hanning",
        num_mel_bins=num_mels,
        dither=0.0,
    )


@dataclass(frozen=True)
class KaldiMel:
    """A sound to `(1, M, F)`: the start, of so many seconds, at 16 kHz; a shorter one is followed
    by zeros."""

    num_mels: int
    num_frames: int
    seconds: float
    mean: float
    deviation: float

    def __call__(self, waveform: Any) -> Tensor:
        length = round(self.seconds * waveform.sample_rate_hz)
        start = waveform.stretch(0, min(length, waveform.length))
        mel = mel_bands(first_channel(start, SAMPLE_RATE_HZ), self.num_mels, SAMPLE_RATE_HZ)
        mel = mel[: self.num_frames]
        mel = nn.functional.pad(mel, (0, 0, 0, self.num_frames - len(mel)))
        return (mel.T[None] - self.mean) / self.deviation


@dataclass(frozen=True)
class ThreeStretches:
    """A sound of any length to `(3, M, F)`: F frames from its start, from a third and from two
    thirds of where such a stretch can begin; a shorter sound is repeated."""

    sample_rate_hz: int
    num_mels: int
    num_frames: int
    mean: float
    deviation: float

    def __call__(self, waveform: Any) -> Tensor:
        values = first_channel(waveform, self.sample_rate_hz)
        frame, hop = lengths(self.sample_rate_hz)
        total, F = 1 + (values.shape[1] - frame) // hop, self.num_frames
        if total <= F:
            mel = mel_bands(values, self.num_mels, self.sample_rate_hz)
            mels = [mel.repeat(-(-F // total), 1)[:F]] * 3
        else:
            places = torch.arange(total - F + 1).tensor_split(3)
            starts = [int(part[0]) * hop if len(part) else 0 for part in places]
            mels = [
                mel_bands(
                    values[:, a : a + (F - 1) * hop + frame], self.num_mels, self.sample_rate_hz
                )
                for a in starts
            ]
        return (torch.stack(mels).mT - self.mean) / (2 * self.deviation)
