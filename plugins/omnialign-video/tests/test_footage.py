"""A stretch of a file is what the whole file has there, whatever its key frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from omnialign_video import Clip, VideoModality, footage
from omnialign_video.fitting import FitClip
from omnialign_video.footage import Footage

from omnialign import ReadError
from omnialign.data.pipeline import Pipeline

VIDEO = VideoModality()
FPS = 10
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
X264 = {"preset": "veryfast"}
STRUCTURES: dict[str, tuple[str, dict[str, str]]] = {
    "intra.mp4": ("libx264", X264 | {"g": "1"}),
    "no_b.mp4": ("libx264", X264 | {"g": "12", "bf": "0"}),
    "closed.mp4": ("libx264", X264 | {"g": "24", "bf": "3"}),
    "open.mkv": ("libx264", X264 | {"g": "24", "bf": "4", "x264-params": "open-gop=1"}),
    "pyramid.mov": ("libx264", X264 | {"g": "50", "bf": "8", "b-pyramid": "normal"}),
    "one_key.mkv": ("libx264", X264 | {"g": "9999"}),
    "part2.mp4": ("mpeg4", {"g": "15", "bf": "2"}),
    "part2.avi": ("mpeg4", {"g": "15"}),
    "part2_b.avi": ("mpeg4", {"g": "15", "bf": "2"}),
    "nine.webm": ("libvpx-vp9", {"g": "20", "cpu-used": "8", "deadline": "realtime"}),
}


def write(
    path: Path, codec: str, options: dict[str, str], seconds: float = 18, **more: Any
) -> Path:
    """Noise that drifts, in 48 × 32 pixels."""
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 256, (32, 400, 3), dtype=np.uint8).repeat(2, 0).repeat(2, 1)
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=FPS, width=48, height=32, options=options)
        stream.pix_fmt = "yuv420p"
        if more.get("rotation"):
            stream.set_display_rotation(more["rotation"])
        if more.get("jitter"):
            stream.codec_context.time_base = Fraction(1, 1000)
        for t in range(round(seconds * FPS)):
            pixels = np.ascontiguousarray(ground[8:40, 3 * t : 3 * t + 48])
            frame = av.VideoFrame.from_ndarray(pixels)
            if more.get("jitter"):
                frame.pts, frame.time_base = 100 * t + int(rng.integers(60)), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def same(left: Clip, right: Clip) -> bool:
    return torch.equal(left.frames, right.frames) and torch.equal(
        left.times_seconds, right.times_seconds
    )


def check(path: Path) -> Footage:
    opened, whole = VIDEO.open(path), VIDEO.read(path)
    assert isinstance(opened, Footage)
    assert torch.equal(opened.times_seconds, whole.times_seconds)
    for window in (1.0, 2.7, 5.0):
        cuts = VIDEO.segments(whole, window)
        stretches = opened.segments(window)
        assert len(cuts) == len(stretches) > 3
        for cut, stretch in zip(cuts, stretches, strict=True):
            assert isinstance(stretch.sample, Footage)
            assert stretch.sample._decoded() is not None
            assert same(cut.sample, stretch.sample.read())
            assert (cut.start_seconds, cut.end_seconds) == (
                stretch.start_seconds,
                stretch.end_seconds,
            )
    assert same(opened.read(), whole)
    return opened


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_stretch_is_that_of_the_whole(name: str, tmp_path: Path) -> None:
    opened = check(write(tmp_path / name, *STRUCTURES[name]))
    assert (len(opened.key_stamps) == 1) == (name == "one_key.mkv")


@pytest.mark.parametrize("more", [{"rotation": 90}, {"jitter": True}])
def test_rotation_and_a_variable_rate(more: dict[str, Any], tmp_path: Path) -> None:
    check(write(tmp_path / "a.mp4", *STRUCTURES["closed.mp4"], **more))


def test_only_what_is_needed_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scaled: list[int] = []
    plain = footage.rgb

    def counted(frame: av.VideoFrame, size: tuple[int, int]) -> Any:
        scaled.append(frame.pts or 0)
        return plain(frame, size)

    monkeypatch.setattr(footage, "rgb", counted)
    opened = VIDEO.open(write(tmp_path / "a.mp4", *STRUCTURES["closed.mp4"]))
    assert isinstance(opened, Footage)
    fit = FitClip(4, 24, "pad")
    made = Pipeline(VIDEO, fit, torch.stack, 2.0, "windows")
    for seed in range(5):
        scaled.clear()
        value, place = made.training_input(opened, torch.Generator().manual_seed(seed))
        assert len(scaled) <= 2 * FPS + 1
        segments = made.segments(VIDEO.read(tmp_path / "a.mp4"))
        assert torch.equal(value, fit(segments[place].sample))


def test_what_is_read_whole(tmp_path: Path) -> None:
    short = write(tmp_path / "a.mp4", *STRUCTURES["closed.mp4"], seconds=4)
    for source in (short, short.read_bytes()):
        assert isinstance(VIDEO.open(source), Clip)
    hidden = write(tmp_path / "a.webm", "libvpx", {"g": "20", "cpu-used": "8"})
    assert isinstance(VIDEO.open(hidden), Clip)
    with pytest.raises(ReadError, match=r"missing\.mp4"):
        VIDEO.open(tmp_path / "missing.mp4")
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(short.read_bytes()[:400])
    with pytest.raises(ReadError, match=r"broken\.mp4"):
        VIDEO.open(broken)


def test_a_file_that_is_not_what_it_says_gives_what_stands_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mp4", *STRUCTURES["closed.mp4"])
    opened, whole = VIDEO.open(path), VIDEO.read(path)
    assert isinstance(opened, Footage)
    monkeypatch.setattr(Footage, "_decoded", lambda self: None)
    cut, stretch = VIDEO.segments(whole, 2.0)[3], opened.segments(2.0)[3]
    assert same(cut.sample, stretch.sample.read())


def test_real_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = sorted((DATA / "sample_videos" / "clips").glob("*.mp4"))[::8]
    if not clips:
        pytest.skip("the real data is not beside this checkout")
    monkeypatch.setattr(footage, "LONG_SECONDS", 0.0)
    for path in clips:
        opened, whole = VIDEO.open(path), VIDEO.read(path)
        assert isinstance(opened, Footage)
        for cut, stretch in zip(VIDEO.segments(whole, 0.5), opened.segments(0.5), strict=True):
            assert same(cut.sample, stretch.sample.read())
