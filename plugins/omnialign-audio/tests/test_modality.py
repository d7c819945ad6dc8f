"""Segments, previews, and what costs nothing to import."""

import io
import subprocess
import sys

import pytest
import soundfile
import torch
from omnialign_audio import Audio, Waveform

AUDIO = Audio()


def noise(seconds: float, rate: int = 8000) -> Waveform:
    generator = torch.Generator().manual_seed(0)
    return Waveform(torch.rand(2, round(seconds * rate), generator=generator) - 0.5, rate)


def test_segments_are_consecutive_and_carry_their_times() -> None:
    sample = noise(5.0)
    segments = AUDIO.segments(sample, 2.0)
    assert [(s.start_seconds, s.end_seconds) for s in segments] == [(0, 2), (2, 4), (4, 5)]
    assert torch.equal(torch.cat([s.sample.values for s in segments], -1), sample.values)


@pytest.mark.parametrize(("seconds", "count"), [(2.0, 1), (2.1, 1), (2.3, 2), (0.01, 1), (6.0, 3)])
def test_a_short_rest_is_left_out(seconds: float, count: int) -> None:
    segments = AUDIO.segments(noise(seconds), 2.0)
    assert len(segments) == count
    assert all(0 < s.sample.seconds <= 2 for s in segments)


def test_a_window_below_one_sample() -> None:
    assert len(AUDIO.segments(noise(0.001), 1e-9)) == 8


def test_preview_is_a_short_mono_wav() -> None:
    values, rate = soundfile.read(io.BytesIO(AUDIO.preview(noise(60)).data))
    assert rate == 8000
    assert values.shape == (5 * 8000,)


def test_the_module_imports_without_torch() -> None:
    code = (
        "import sys, omnialign_audio; omnialign_audio.Audio().claim(b'fLaC');"
        "assert not {'torch', 'torchaudio', 'soundfile', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
