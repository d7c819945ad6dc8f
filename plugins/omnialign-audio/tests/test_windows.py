"""Files of any length, window by window."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from omnialign_audio import Audio, Waveform, decoding

from omnialign import ReadError, Unread

AUDIO = Audio()
RATE = 8000
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def write(path: Path, seconds: float, subtype: str | None = None, rate: int = RATE) -> Path:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (round(seconds * rate), 2))
    soundfile.write(path, noise, rate, subtype)
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac", "a.mp3", "a.ogg"])
@pytest.mark.parametrize("seconds", [0.01, 0.7, 2.0, 1e6])
@pytest.mark.parametrize("block", [999, 1 << 20])
def test_windows_are_those_of_the_whole(
    name: str, seconds: float, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "BLOCK_VALUES", block)
    path = write(tmp_path / name, 4.1)
    wanted = AUDIO.segments(AUDIO.read(path), seconds)
    for source in (path, path.read_bytes()):
        found = list(AUDIO.read_segments(source, seconds))
        times = [(s.start_seconds, s.end_seconds) for s in found]
        assert times == [(s.start_seconds, s.end_seconds) for s in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one.sample.values, other.sample.values)


@pytest.mark.parametrize(("seconds", "count"), [(4.0, 2), (4.19, 2), (4.21, 3), (0.01, 1)])
def test_a_short_rest_is_left_out(seconds: float, count: int, tmp_path: Path) -> None:
    assert len(list(AUDIO.read_segments(write(tmp_path / "a.wav", seconds), 2.0))) == count


def test_arrays_have_windows_too() -> None:
    waveform = Waveform(torch.rand(1, 5 * RATE), RATE)
    for source in (waveform, (waveform.values, RATE)):
        segments = list(AUDIO.read_segments(source, 2.0))
        assert [s.start_seconds for s in segments] == [0, 2, 4]


@pytest.mark.parametrize("name", ["a.flac", "a.mp3"])
def test_a_long_file_is_never_held(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with soundfile.SoundFile(path, "w", 44_100, 2) as file:
        for _ in range(30):
            file.write(np.zeros((10 * 44_100, 2), np.float32))
    list(AUDIO.read_segments(path, 2.0))
    tracemalloc.start()
    try:
        count = sum(1 for _ in AUDIO.read_segments(path, 2.0))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 150
    assert peak < 20e6, "five minutes are 106 MB; a window and a block are 5 MB"


def test_more_than_an_hour_is_read_in_windows_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(3700 * 100, np.int16), 100)
    with pytest.raises(ReadError, match=r"3600 s.*at once.*cut it into parts"):
        AUDIO.read(path)
    found = list(AUDIO.read_segments(path, 60.0))
    assert (len(found), found[-1].end_seconds) == (62, 3700)
    opened = AUDIO.open(path)
    assert isinstance(opened, Unread)
    assert opened.segments(60.0)[-1].sample.read().length == 40 * 100
    with pytest.raises(ReadError, match=r"3600 s.*at once"):
        opened.read()


def test_more_than_a_day_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(24 * 3600 + 1, np.int16), 1)
    with pytest.raises(ReadError, match="at most 86400 s"):
        list(AUDIO.read_segments(path, 60.0))


def test_what_breaks_in_the_middle_says_so_there(tmp_path: Path) -> None:
    values = np.zeros(40 * RATE, np.float32)
    values[-5] = np.nan
    file = io.BytesIO()
    soundfile.write(file, values, RATE, "FLOAT", format="WAV")
    with pytest.raises(ReadError, match="found 1 that are NaN"):
        list(AUDIO.read_segments(file.getvalue(), 2.0))
    cut = tmp_path / "cut.flac"
    cut.write_bytes(write(tmp_path / "a.flac", 60).read_bytes()[:-9000])
    with pytest.raises(ReadError, match=r"cut\.flac"):
        list(AUDIO.read_segments(cut, 2.0))


def test_real_recordings_in_one_long_file(tmp_path: Path) -> None:
    """A digit stands in the window whose seconds say so."""
    if not DATA.is_dir():
        pytest.skip("the real data is not beside this checkout")
    spoken = [AUDIO.read(path) for path in sorted((DATA / "fsdd" / "audio").iterdir())[:300]]
    path = tmp_path / "long.flac"
    values = torch.cat([one.values[0] for one in spoken])
    soundfile.write(path, values.numpy(), RATE, "PCM_16")
    segments = list(AUDIO.read_segments(path, 2.0))
    assert len(segments) > 30
    for segment in segments:
        assert segment.start_seconds is not None
        assert segment.end_seconds is not None
        start, stop = round(segment.start_seconds * RATE), round(segment.end_seconds * RATE)
        wanted = values[start:stop]
        torch.testing.assert_close(segment.sample.values[0], wanted, rtol=0, atol=1e-4)
