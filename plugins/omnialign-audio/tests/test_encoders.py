"""Spectrograms and the encoders of them."""

import pytest
import torch
from omnialign_audio import Audio, Waveform
from omnialign_audio.encoders import SpectrogramConv, SpectrogramTransformer
from omnialign_audio.spectrogram import LogMel, checked_log_mel, resampler

from omnialign import OmniAlignError

LOG_MEL = checked_log_mel(16_000, 2.0, 64, 0.01)


def tone(hz: float, rate: int = 16_000, seconds: float = 2.0, channels: int = 1) -> Waveform:
    time = torch.arange(round(seconds * rate)) / rate
    return Waveform(torch.sin(2 * torch.pi * hz * time).expand(channels, -1) / 2, rate)


def test_log_mel_is_bounded_and_rises_with_pitch() -> None:
    bands = []
    for hz in (200, 800, 3200):
        mel = LOG_MEL(tone(hz))
        assert mel.shape == (1, 64, 200)
        assert mel.max() == 1
        assert mel.min() >= -1
        bands.append(int(mel.mean((0, 2)).argmax()))
    assert bands == sorted(bands)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 44_101, 48_000, 96_000])
def test_rate_and_channels_do_not_change_what_is_seen(rate: int) -> None:
    expected = LOG_MEL(tone(1000))
    seen = LOG_MEL(tone(1000, rate, channels=2))
    loud = expected > 0.5
    assert (seen - expected)[loud].abs().max() < 0.1


def test_loudness_does_not_count_and_silence_is_silent() -> None:
    quiet = tone(500)
    torch.testing.assert_close(
        LOG_MEL(Waveform(quiet.values * 0.1, 16_000)), LOG_MEL(quiet), atol=1e-2, rtol=0
    )
    assert LOG_MEL(Waveform(torch.zeros(1, 100), 16_000)).max() == -1


def test_short_sounds_are_followed_by_silence() -> None:
    mel = LOG_MEL(tone(500, seconds=0.5))
    assert mel[0, :, 60:].max() == -1
    assert LOG_MEL(tone(500, seconds=3)).shape == (1, 64, 200)
    assert LOG_MEL(Waveform(torch.ones(1, 1), 8000)).isfinite().all()


def test_hostile_rates_need_little_memory() -> None:
    assert resampler(767_999, 16_001).kernel.numel() < 50_000_000


def test_repr_states_the_settings() -> None:
    assert repr(LOG_MEL) == (
        "LogMel(sample_rate_hz=16000, clip_seconds=2.0, num_mels=64, hop_seconds=0.01)"
    )
    assert isinstance(LOG_MEL, LogMel)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (SpectrogramConv, {"width": 100}),
        (SpectrogramConv, {"clip_seconds": 0.0}),
        (SpectrogramConv, {"num_mels": 4000}),
        (SpectrogramConv, {"sample_rate_hz": 0}),
        (SpectrogramTransformer, {"num_heads": 7}),
        (SpectrogramTransformer, {"patch_mels": 128}),
        (SpectrogramTransformer, {"patch_frames": 0}),
    ],
)
def test_impossible_options(kind: type, options: dict[str, float]) -> None:
    with pytest.raises(OmniAlignError, match="wanted"):
        kind(**options)


def test_conv_learns_pitch() -> None:
    """A few steps on tones separate low from high."""
    torch.manual_seed(0)
    encoder = SpectrogramConv(clip_seconds=0.5, num_mels=32, width=64, dropout=0.0)
    clips = [encoder.preprocess(tone(hz, seconds=0.5)) for hz in range(200, 2000, 75)]
    batch, target = encoder.collate(clips), (torch.arange(24) >= 12).float()
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=3e-3)
    for _ in range(15):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(encoder(batch)[:, 0], target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


def test_window_is_what_segments_cut() -> None:
    encoder = SpectrogramConv(clip_seconds=0.5, width=64)
    assert encoder.window == 0.5
    segments = Audio().segments(tone(300, seconds=1.6), encoder.window)
    batch = encoder.collate([encoder.preprocess(s.sample) for s in segments])
    assert encoder(batch).shape == (4, 64)
