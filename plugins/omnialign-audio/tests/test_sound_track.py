"""The sound of a video, from the file of the pictures."""

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from omnialign_audio import Audio, Waveform

from omnialign import Claim, ReadError, SharedSpace
from omnialign.engine import train
from omnialign.recipe import parse_recipe
from omnialign.registry import registry

AUDIO = Audio()


def write(
    path: Path,
    codec: str | None = "aac",
    video_codec: str | None = "libx264",
    rate: int = 44_100,
    layout: str = "stereo",
    seconds: float = 3.0,
    starts_at: float = 0.0,
    pause: float = 0.0,
    hz: float = 440.0,
    level: int = 100,
) -> Path:
    """Soft tones, one a channel, loud from 1.0 to 1.2 s; after 2 s there may be a pause."""
    with av.open(path, "w") as file:
        if video_codec:
            video = file.add_stream(video_codec, rate=10, width=48, height=32)
            assert isinstance(video, av.VideoStream)
            video.pix_fmt = "yuv420p"
        if codec:
            audio = file.add_stream(codec, rate=rate, layout=layout)
            assert isinstance(audio, av.AudioStream)
            fit = av.AudioResampler(audio.codec_context.format, layout, rate)
        if video_codec:
            for _ in range(round(10 * seconds)):
                pixels = np.full((32, 48, 3), level, np.uint8)
                file.mux(video.encode(av.VideoFrame.from_ndarray(pixels)))
            file.mux(video.encode(None))
        if codec:
            values = tones(round(seconds * rate), rate, audio.codec_context.layout.nb_channels, hz)
            for start in range(0, values.shape[1], 1024):
                interleaved = values[:, start : start + 1024].T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(interleaved.copy(), "flt", layout)
                late = starts_at + (pause if start >= 2 * rate else 0)
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = start + round(late * rate)
                for part in fit.resample(frame):
                    file.mux(audio.encode(part))
            file.mux(audio.encode(None))
    return path


def tones(num: int, rate: int, num_channels: int, hz: float) -> np.ndarray[Any, Any]:
    times = np.arange(num) / rate
    loudness = np.where((times >= 1) & (times < 1.2), 0.8, 0.02)
    waves = [np.sin(2 * np.pi * hz * times) for _ in range(num_channels)]
    return (np.stack(waves) * loudness).astype(np.float32)


def loud_from(waveform: Waveform) -> float:
    return int((waveform.values[0].abs() > 0.3).nonzero()[0]) / waveform.sample_rate_hz


@pytest.mark.parametrize(
    ("name", "codec", "video_codec", "rate"),
    [
        ("a.mp4", "aac", "libx264", 44_100),
        ("a.mov", "pcm_s16le", "libx264", 48_000),
        ("a.mkv", "flac", "libx264", 44_100),
        ("b.mkv", "ac3", "libx264", 48_000),
        ("a.webm", "libopus", "libvpx-vp9", 48_000),
        ("a.avi", "libmp3lame", "mpeg4", 44_100),
    ],
)
def test_containers(name: str, codec: str, video_codec: str, rate: int, tmp_path: Path) -> None:
    path = write(tmp_path / name, codec, video_codec, rate)
    waveform = AUDIO.read(path)
    assert (waveform.values.shape[0], waveform.sample_rate_hz) == (2, rate)
    assert waveform.values.dtype == torch.float32
    assert waveform.seconds == pytest.approx(3, abs=0.05)
    assert loud_from(waveform) == pytest.approx(1, abs=0.03)
    assert torch.equal(AUDIO.read(path.read_bytes()).values, waveform.values)


@pytest.mark.parametrize(
    ("layout", "num", "codec"),
    [("mono", 1, "aac"), ("5.1", 6, "aac"), ("7.1", 8, "aac"), ("7.1", 8, "pcm_s16le")],
)
def test_channels_are_kept(layout: str, num: int, codec: str, tmp_path: Path) -> None:
    waveform = AUDIO.read(write(tmp_path / "a.mkv", codec, None, 48_000, layout))
    assert waveform.values.shape[0] == num
    loud = waveform.values[:, 48_960:56_640].square().mean(1).sqrt()
    assert (
        loud[[k for k in range(num) if k != 3]] > 0.3
    ).all()  # the fourth holds the lowest tones


def test_it_is_lossless_where_the_codec_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", "pcm_s16le", "libx264", 16_000, "mono", seconds=2)
    wanted = torch.from_numpy(tones(32_000, 16_000, 1, 440.0))
    torch.testing.assert_close(AUDIO.read(path).values, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_second_of_the_sound_is_that_second_of_the_pictures(suffix: str, tmp_path: Path) -> None:
    late = AUDIO.read(write(tmp_path / f"late{suffix}", starts_at=0.5))
    assert loud_from(late) == pytest.approx(1.5, abs=0.01)
    assert not late.values[:, : late.sample_rate_hz // 3].any()
    paused = AUDIO.read(write(tmp_path / f"paused{suffix}", pause=0.7))
    assert paused.seconds == pytest.approx(3.7, abs=0.05)
    middle = paused.values[:, round(2.2 * 44_100) : round(2.6 * 44_100)]
    assert not middle.any()


def test_windows_are_those_of_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", pause=0.7)
    for seconds in (0.7, 2.0, 9.0):
        wanted = AUDIO.segments(AUDIO.read(path), seconds)
        found = list(AUDIO.read_segments(path, seconds))
        assert [s.start_seconds for s in found] == [s.start_seconds for s in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert torch.equal(one.sample.values, other.sample.values)


def test_no_sound_and_damage(tmp_path: Path) -> None:
    silent = write(tmp_path / "silent.mp4", None)
    with pytest.raises(ReadError, match=r"silent\.mp4.*no sound track, only: video"):
        AUDIO.read(silent)
    data = write(tmp_path / "a.mp4").read_bytes()
    with pytest.raises(ReadError, match="damaged or cut short"):
        AUDIO.read(data[: len(data) // 2])
    data = write(tmp_path / "a.mkv").read_bytes()
    half = len(data) // 2
    assert 0 < AUDIO.read(data[:half]).seconds < 2
    with pytest.raises(ReadError, match="damaged or cut short"):
        AUDIO.read(data[:half] + bytes(half))


def test_of_several_tracks_the_one_with_most_channels(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(path, "w") as file:
        tracks = [
            file.add_stream("pcm_s16le", rate=8000, layout=name) for name in ("mono", "stereo")
        ]
        file.start_encoding()
        for track, num in zip(tracks, (1, 2), strict=True):
            assert isinstance(track, av.AudioStream)
            values = np.zeros((1, 8000 * num), np.int16)
            frame = av.AudioFrame.from_ndarray(values, "s16", track.codec_context.layout)
            frame.sample_rate = 8000
            file.mux([*track.encode(frame), *track.encode(None)])
    assert AUDIO.read(path).values.shape == (2, 8000)


def test_whose_they_are(tmp_path: Path) -> None:
    movie, sound = write(tmp_path / "a.mp4"), write(tmp_path / "a.m4a", video_codec=None)
    assert registry().decide(str(movie))[0] == "video"
    assert registry().decide(movie.read_bytes())[0] == "video"
    assert registry().decide(str(sound))[0] == "audio"
    assert registry().decide(sound.read_bytes())[0] == "audio"
    assert AUDIO.claim(io.BytesIO(movie.read_bytes())) == Claim.NO
    assert AUDIO.read(sound).seconds == pytest.approx(3, abs=0.05)


def recipe(folder: Path, columns: dict[str, str]) -> dict[str, Any]:
    return {
        "space": {"dim": 16},
        "towers": {
            "video": {"encoder": {"name": "frames", "channels": [8, 16], "width": 16}},
            "audio": {"encoder": {"name": "conv", "width": 64, "num_mels": 32}},
        },
        "data": {"movies": {"source": {"name": "manifest", "path": str(folder)}}},
        "pairs": [{"modalities": ["video", "audio"], "train": {"data": "movies"} | columns}],
        "train": {"num_steps": 12, "batch_size": 6, "log_every": 1, "trackers": []},
    }


@pytest.mark.parametrize("column", ["file_name", "movie"])
def test_pictures_and_sound_of_one_column_are_a_pair(column: str, tmp_path: Path) -> None:
    """Bright pictures sound high."""
    folder = tmp_path / "movies"
    folder.mkdir()
    rows = []
    for k in range(6):
        path = folder / f"{k}.mp4"
        write(path, rate=16_000, layout="mono", seconds=1.5, hz=200 * 1.5**k, level=20 + 40 * k)
        rows.append(json.dumps({column: path.name}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    columns = {} if column == "file_name" else {"columns": {"video": column, "audio": column}}
    table = recipe(folder, columns)
    space = train(parse_recipe(table), tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.3
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()
    check_both_sides(space, folder / "0.mp4")


def check_both_sides(space: SharedSpace, path: Path) -> None:
    pictures, sound = space.embed(path), space.embed(path, "audio")
    assert torch.equal(pictures, space.embed(path, "video"))
    assert not torch.allclose(pictures, sound)
    ((start, end, vector),) = space.embed_segments(path, "audio")
    assert (start, end) == (0, pytest.approx(1.5, abs=0.1))
    torch.testing.assert_close(vector, sound[0])
