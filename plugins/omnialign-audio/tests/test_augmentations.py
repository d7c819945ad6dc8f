"""Each augmentation does what it says."""

from typing import Any

import pytest
import torch
from omnialign_audio import Audio, Waveform
from omnialign_audio import augmentations as aug

from omnialign import OmniAlignError

RATE = 8000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(seconds: float = 1.0) -> Waveform:
    return Waveform(torch.randn(2, int(seconds * RATE), generator=generator()) / 4, RATE)


def tone(hz: float = 1000.0) -> Waveform:
    return Waveform(torch.sin(2 * torch.pi * hz * torch.arange(RATE) / RATE)[None], RATE)


def peak_hz(waveform: Waveform) -> float:
    spectrum = torch.fft.rfft(waveform.values[0]).abs()
    return float(spectrum.argmax()) * waveform.sample_rate_hz / waveform.values.shape[-1]


def test_crop() -> None:
    sample = noise()
    part = aug.Crop(seconds=0.25)(sample, generator())
    assert part.values.shape == (2, 2000)
    starts = (sample.values[0] == part.values[0, 0]).nonzero().flatten().tolist()
    assert any(torch.equal(sample.values[:, s : s + 2000], part.values) for s in starts)
    assert aug.Crop(seconds=2)(sample, generator()) is sample


def test_shift() -> None:
    sample = noise()
    later = aug.Shift(max_seconds=0.5)(sample, generator(1))
    silent = later.values.shape[-1] - RATE
    assert 0 < silent <= RATE // 2
    assert not later.values[:, :silent].any()
    assert torch.equal(later.values[:, silent:], sample.values)
    rolled = aug.Shift(max_seconds=0.5, mode="roll")(sample, generator(1))
    assert torch.equal(rolled.values, sample.values.roll(silent, -1))


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_speed_moves_pitch_and_duration(factor: float) -> None:
    played = aug.Speed(min_factor=factor, max_factor=factor)(tone(), generator())
    assert played.seconds == pytest.approx(1 / factor, rel=0.02)
    assert peak_hz(played) == pytest.approx(1000 * factor, rel=0.02)
    assert played.values.square().mean() == pytest.approx(0.5, rel=0.1)


def test_gain() -> None:
    sample = noise()
    factors = [aug.Gain(max_db=6)(sample, generator(s)).values / sample.values for s in range(20)]
    assert all(f.std() < 1e-4 for f in factors)
    means = torch.stack([f.mean() for f in factors])
    assert 0.5 <= means.min() < 0.8 < 1.3 < means.max() <= 2.0


def test_noise_has_the_ratio_asked_for() -> None:
    sample = tone()
    noisy = aug.Noise(min_snr_db=10, max_snr_db=10)(sample, generator())
    added = (noisy.values - sample.values).square().mean()
    assert 10 * torch.log10(0.5 / added) == pytest.approx(10, abs=0.3)
    silence = Waveform(torch.zeros(1, 100), RATE)
    assert not aug.Noise()(silence, generator()).values.any()


def test_equalizer_is_smooth_and_bounded() -> None:
    sample = noise()
    filtered = aug.Equalizer(num_bands=4, max_db=10)(sample, generator())
    gain = torch.fft.rfft(filtered.values[0]).abs() / torch.fft.rfft(sample.values[0]).abs()
    db = 20 * torch.log10(gain[10:-10])
    assert db.abs().max() < 12
    assert db.std() > 1
    assert db.unfold(0, 200, 200).std(1).median() < 1


def test_time_mask_silences_stretches() -> None:
    sample = noise()
    masked = aug.TimeMask(num_masks=1, max_fraction=0.5)(sample, generator(3))
    silent = (masked.values == 0).all(0)
    assert 0 < silent.sum() <= RATE // 2
    assert silent.int().diff().abs().sum() <= 2
    assert torch.equal(masked.values[:, ~silent], sample.values[:, ~silent])


def test_frequency_mask_removes_a_band() -> None:
    sample = noise()
    masked = aug.FrequencyMask(num_masks=1, max_fraction=0.5)(sample, generator(1))
    ratio = torch.fft.rfft(masked.values[0]).abs() / torch.fft.rfft(sample.values[0]).abs()
    removed = (ratio < 0.1).float().mean()
    assert 0.02 < removed < 0.9
    assert ((ratio > 0.9) & (ratio < 1.1)).float().mean() > 0.9 - removed


@pytest.mark.parametrize("length", [1, 2, 5, 17])
@pytest.mark.parametrize("name", sorted(Audio.augmentations))
def test_sounds_of_a_few_samples(name: str, length: int) -> None:
    kind: Any = getattr(aug, Audio.augmentations[name].split(":")[1])
    changed = kind()(Waveform(torch.ones(1, length), RATE), generator())
    assert changed.values.shape[0] == 1
    assert changed.values.shape[1] >= 1
    assert changed.values.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (aug.Crop, {"seconds": 0}),
        (aug.Shift, {"max_seconds": -1}),
        (aug.Speed, {"min_factor": 1.2, "max_factor": 1.0}),
        (aug.Gain, {"max_db": -1}),
        (aug.Noise, {"min_snr_db": 9, "max_snr_db": 5}),
        (aug.Equalizer, {"num_bands": 1}),
        (aug.TimeMask, {"num_masks": 0}),
        (aug.FrequencyMask, {"max_fraction": 1.5}),
    ],
)
def test_impossible_options(kind: Any, options: dict[str, float]) -> None:
    with pytest.raises(OmniAlignError, match=next(iter(options))):
        kind(**options)
