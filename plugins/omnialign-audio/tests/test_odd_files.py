"""Files as they come: rates, widths, channels and headers of every kind."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from omnialign_audio import Audio, Waveform
from omnialign_audio.encoders import SpectrogramConv

from omnialign import ReadError

AUDIO = Audio()


def encoded(values: np.ndarray, rate: int, format: str = "WAV", subtype: str = "FLOAT") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, values, rate, subtype, format=format)
    return file.getvalue()


def spectrogram(waveform: Waveform) -> torch.Tensor:
    return SpectrogramConv().preprocess(waveform)


@pytest.mark.parametrize("rate", [1, 8000, 11_025, 22_050, 44_100, 96_000, 192_000])
def test_every_rate_reaches_the_encoder(rate: int) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(rate * 2) / rate) / 2
    waveform = AUDIO.read(encoded(tone, rate))
    assert (waveform.sample_rate_hz, waveform.seconds) == (rate, 2.0)
    bands = spectrogram(waveform)
    assert bands.shape == (1, 64, 200)
    assert bands.isfinite().all()
    if rate > 1:
        same = spectrogram(Waveform(torch.sin(torch.arange(32_000) * 0.172788)[None] / 2, 16_000))
        assert bands[0, :, 20:180].mean(1).argmax() == same[0, :, 20:180].mean(1).argmax()


@pytest.mark.parametrize("num_channels", [1, 2, 6, 8])
@pytest.mark.parametrize(("format", "subtype"), [("WAV", "PCM_24"), ("WAV", "FLOAT"), ("FLAC", "")])
def test_channels_are_kept_and_the_encoder_hears_their_mean(
    num_channels: int, format: str, subtype: str
) -> None:
    values = np.random.default_rng(0).uniform(-0.5, 0.5, (9000, num_channels))
    data = encoded(values, 8000, format, subtype or "PCM_24")
    waveform = AUDIO.read(data)
    torch.testing.assert_close(
        waveform.values, torch.from_numpy(values.T).float(), rtol=0, atol=1e-6
    )
    mean = Waveform(waveform.values.mean(0, keepdim=True), 8000)
    torch.testing.assert_close(spectrogram(waveform), spectrogram(mean))


def test_channels_that_cancel_are_silence() -> None:
    tone = torch.sin(torch.arange(16_000) / 10)
    silence = spectrogram(Waveform(torch.zeros(1, 16_000), 16_000))
    assert torch.equal(spectrogram(Waveform(torch.stack([tone, -tone]), 16_000)), silence)


def test_too_many_channels() -> None:
    with pytest.raises(ReadError, match="at most 64 channels, found 65"):
        AUDIO.read(encoded(np.zeros((10, 65)), 8000))


def test_one_sample_and_silence() -> None:
    for values in (np.array([0.5]), np.zeros(1), np.zeros(40_000)):
        waveform = AUDIO.read(encoded(values, 16_000))
        assert waveform.length == len(values)
        assert spectrogram(waveform).isfinite().all()
        assert len(AUDIO.segments(waveform, 2.0)) == max(1, len(values) // 32_000 + 1)


def test_beyond_full_scale_is_kept_and_beyond_reason_refused() -> None:
    loud = AUDIO.read(encoded(np.full(9000, 40_000.0), 8000))
    assert loud.values.max() == 40_000
    assert spectrogram(loud).isfinite().all()
    assert spectrogram(AUDIO.read(encoded(np.full(9000, 1e9), 8000))).isfinite().all()
    for huge in (encoded(np.full(9000, 2e9), 8000), (np.full(9000, 3e38, np.float32), 8000)):
        with pytest.raises(ReadError, match=r"values of at most 1e\+09 .*found"):
            AUDIO.read(huge)
    with pytest.raises(ReadError, match="9000 that are NaN or infinite"):
        AUDIO.read(encoded(np.full(9000, 1e300), 8000, subtype="DOUBLE"))


def test_nothing(tmp_path: Path) -> None:
    empty = tmp_path / "empty.wav"
    empty.write_bytes(b"")
    with pytest.raises(ReadError, match=r"empty\.wav.*an empty file"):
        AUDIO.read(empty)


def test_a_header_that_claims_hours(tmp_path: Path) -> None:
    """A WAV is read as far as it goes; a FLAC that ends too early is damaged."""
    tone = np.sin(np.arange(9000) / 10) / 2
    wav = bytearray(encoded(tone, 8000, subtype="PCM_16"))
    at = wav.index(b"data") + 4
    wav[at : at + 4] = struct.pack("<I", 0xFFFFFFF0)
    assert AUDIO.read(bytes(wav)).length == 9000
    flac = bytearray(encoded(tone, 8000, "FLAC", "PCM_16"))
    flac[21] |= 0x0F
    flac[22:26] = b"\xff\xff\xff\xff"
    path = tmp_path / "a.flac"
    path.write_bytes(flac)
    for read in (AUDIO.read, AUDIO.open, lambda source: list(AUDIO.read_segments(source, 2.0))):
        with pytest.raises(ReadError, match=r"a\.flac.*is it damaged"):
            read(path)
