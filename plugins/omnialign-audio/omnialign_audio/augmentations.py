"""Random changes of a waveform.

Axes: C channels, T samples in time, F frequency bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Generator, Tensor

from omnialign import OmniAlignError
from omnialign_audio.recording import Recording
from omnialign_audio.waveform import Waveform

Sound = TypeVar("Sound", Waveform, Recording)


def uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def integer(low: int, high: int, generator: Generator) -> int:
    """From `low` to `high`, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def require(condition: bool, rule: str, found: object) -> None:
    if not condition:
        raise OmniAlignError(f"wanted {rule}, found {found}")


def fast_length(length: int) -> int:
    """At least `length`, at most an eighth more, with small prime factors: quick to transform."""
    step = 1 << max(0, length.bit_length() - 4)
    return math.ceil(length / step) * step


def filtered(waveform: Waveform, gain: Callable[[Tensor], Tensor]) -> Waveform:
    """Multiplies the spectrum by `gain` of the bins' places on the mel scale, 0 to 1 at Nyquist."""
    length = waveform.values.shape[-1]
    padded = fast_length(length)
    nyquist_hz = waveform.sample_rate_hz / 2
    hz = torch.linspace(0, nyquist_hz, padded // 2 + 1)
    place = torch.log1p(hz / 700) / math.log1p(nyquist_hz / 700)
    spectrum = torch.fft.rfft(waveform.values, n=padded) * gain(place)
    return replace(waveform, values=torch.fft.irfft(spectrum, n=padded)[:, :length])


@dataclass(frozen=True)
class Crop:
    """A random stretch of `seconds`; a shorter sound stays as it is."""

    cuts: ClassVar[bool] = True
    seconds: float = 1.0

    def __post_init__(self) -> None:
        require(self.seconds > 0, "crop.seconds above 0", self.seconds)

    def __call__(self, sample: Sound, generator: Generator) -> Sound:
        length = max(1, round(self.seconds * sample.sample_rate_hz))
        spare = sample.length - length
        if spare <= 0:
            return sample
        start = integer(0, spare, generator)
        return sample.stretch(start, start + length)


@dataclass(frozen=True)
class Shift:
    """Moves the sound later by up to `max_seconds`.

    `pad` puts silence in front, so that the sound grows and nothing is lost; `roll` brings what
    leaves at the end back at the start.
    """

    max_seconds: float = 0.2
    mode: Literal["pad", "roll"] = "pad"

    def __post_init__(self) -> None:
        require(self.max_seconds >= 0, "shift.max_seconds of at least 0", self.max_seconds)

    def __call__(self, sample: Waveform, generator: Generator) -> Waveform:
        steps = integer(0, round(self.max_seconds * sample.sample_rate_hz), generator)
        if self.mode == "roll":
            return replace(sample, values=sample.values.roll(steps, -1))
        return replace(sample, values=torch.nn.functional.pad(sample.values, (steps, 0)))


@dataclass(frozen=True)
class Speed:
    """Plays faster or slower, which changes pitch and formants too (Ko et al. 2015, "Audio
    augmentation for speech recognition"); the factor is drawn evenly in log scale and rounded by
    less than 2 %, so that the transform is quick."""

    min_factor: float = 0.9
    max_factor: float = 1.1

    def __post_init__(self) -> None:
        valid = 0.1 <= self.min_factor <= self.max_factor <= 10
        factors = (self.min_factor, self.max_factor)
        require(valid, "0.1 <= speed.min_factor <= speed.max_factor <= 10", factors)

    def __call__(self, sample: Waveform, generator: Generator) -> Waveform:
        low, high = math.log(self.min_factor), math.log(self.max_factor)
        length = sample.values.shape[-1]
        padded = fast_length(length)
        step = max(1, padded >> 7)
        played = max(1, round(padded / step / math.exp(uniform(low, high, generator)))) * step
        spectrum = torch.fft.rfft(sample.values, n=padded)
        values = torch.fft.irfft(spectrum, n=played)  # a cut or padded spectrum: band-limited
        kept = max(1, round(length * played / padded))
        return replace(sample, values=values[:, :kept] * (played / padded))


@dataclass(frozen=True)
class Gain:
    """Louder or quieter by up to `max_db`, drawn evenly in dB; nothing is clipped."""

    max_db: float = 6.0

    def __post_init__(self) -> None:
        require(self.max_db >= 0, "gain.max_db of at least 0", self.max_db)

    def __call__(self, sample: Waveform, generator: Generator) -> Waveform:
        db = uniform(-self.max_db, self.max_db, generator)
        return replace(sample, values=sample.values * 10 ** (db / 20))


@dataclass(frozen=True)
class Noise:
    """Adds white noise at a signal-to-noise ratio drawn evenly in dB; silence stays silent."""

    min_snr_db: float = 10.0
    max_snr_db: float = 40.0

    def __post_init__(self) -> None:
        valid = self.min_snr_db <= self.max_snr_db
        require(valid, "noise.min_snr_db <= noise.max_snr_db", (self.min_snr_db, self.max_snr_db))

    def __call__(self, sample: Waveform, generator: Generator) -> Waveform:
        rms = sample.values.square().mean().sqrt()
        level = rms * 10 ** (-uniform(self.min_snr_db, self.max_snr_db, generator) / 20)
        noise = torch.randn(sample.values.shape, generator=generator)
        return replace(sample, values=sample.values + level * noise)


@dataclass(frozen=True)
class Equalizer:
    """A random smooth frequency response, as of another room, microphone or voice.

    Gains of up to `max_db` at `num_bands` places, even on the mel scale, with lines in between.
    """

    num_bands: int = 6
    max_db: float = 6.0

    def __post_init__(self) -> None:
        require(self.num_bands >= 2, "equalizer.num_bands of at least 2", self.num_bands)
        require(self.max_db >= 0, "equalizer.max_db of at least 0", self.max_db)

    def __call__(self, sample: Waveform, generator: Generator) -> Waveform:
        db = (2 * torch.rand(self.num_bands, generator=generator) - 1) * self.max_db

        def gain(place: Tensor) -> Tensor:
            at = place * (self.num_bands - 1)
            left = at.long().clamp(max=self.num_bands - 2)
            return 10 ** (torch.lerp(db[left], db[left + 1], at - left) / 20)

        return filtered(sample, gain)


@dataclass(frozen=True)
class TimeMask:
    """Silences `num_masks` stretches, each of up to `max_fraction` of the sound.

    The time masks of SpecAugment (Park et al. 2019), carried from the spectrogram to the waveform
    so that they serve every encoder.
    """

    num_masks: int = 2
    max_fraction: float = 0.15

    def __post_init__(self) -> None:
        check_masks("time_mask", self.num_masks, self.max_fraction)

    def __call__(self, sample: Waveform, generator: Generator) -> Waveform:
        values = sample.values.clone()
        length = values.shape[-1]
        for _ in range(self.num_masks):
            masked = integer(0, int(self.max_fraction * length), generator)
            start = integer(0, length - masked, generator)
            values[:, start : start + masked] = 0
        return replace(sample, values=values)


@dataclass(frozen=True)
class FrequencyMask:
    """Removes `num_masks` bands, each of up to `max_fraction` of the mel scale below Nyquist.

    The frequency masks of SpecAugment (Park et al. 2019), carried from the spectrogram to the
    waveform as band stops.
    """

    num_masks: int = 2
    max_fraction: float = 0.15

    def __post_init__(self) -> None:
        check_masks("frequency_mask", self.num_masks, self.max_fraction)

    def __call__(self, sample: Waveform, generator: Generator) -> Waveform:
        widths = [uniform(0, self.max_fraction, generator) for _ in range(self.num_masks)]
        bands = [(low := uniform(0, 1 - width, generator), low + width) for width in widths]

        def gain(place: Tensor) -> Tensor:
            kept = torch.ones_like(place)
            for low, high in bands:
                kept[(place >= low) & (place < high)] = 0
            return kept

        return filtered(sample, gain)


def check_masks(name: str, num_masks: int, max_fraction: float) -> None:
    require(num_masks >= 1, f"{name}.num_masks of at least 1", num_masks)
    require(0 <= max_fraction <= 1, f"{name}.max_fraction from 0 to 1", max_fraction)
