from __future__ import annotations

from fractions import Fraction
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from omnialign_video import Clip, VideoModality, sampling
from PIL import Image

from omnialign import Claim, ReadError

video = VideoModality()
DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
RED, BLUE = (255, 0, 0), (0, 0, 255)


def brightness(clip: Clip) -> list[int]:
    return clip.frames.float().mean((1, 2, 3)).round().int().tolist()


def container(
    path: Path,
    levels: list[int],
    fps: int = 8,
    codec: str = "libx264",
    size: tuple[int, int] = (48, 32),
    stamps_milliseconds: list[int] | None = None,
    rotation: int = 0,
) -> Path:
    """A file whose frames are grey at the given levels, the left half darker by 40."""
    with av.open(path, "w") as file:
        stream = file.add_stream(codec, rate=fps, width=size[0], height=size[1])
        stream.pix_fmt = "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        if stamps_milliseconds:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, level in enumerate(levels):
            pixels = np.full((size[1], size[0], 3), level, np.uint8)
            pixels[:, : size[0] // 2] -= 40
            frame = av.VideoFrame.from_ndarray(pixels)
            if stamps_milliseconds:
                frame.pts, frame.time_base = stamps_milliseconds[index], Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mp4", "libx264"),
        (".mp4", "mpeg4"),
        (".mov", "libx264"),
        (".mkv", "libx264"),
        (".webm", "libvpx-vp9"),
        (".webm", "libvpx"),
        (".avi", "mpeg4"),
    ],
)
def test_containers(suffix: str, codec: str, tmp_path: Path) -> None:
    clip = video.read(container(tmp_path / f"a{suffix}", [60, 120, 180, 240], codec=codec))
    assert clip.frames.shape == (4, 3, 32, 48)
    assert clip.frames.dtype == torch.uint8
    torch.testing.assert_close(clip.times_seconds, torch.arange(4) / 8, rtol=0, atol=2e-3)
    assert brightness(clip) == pytest.approx([40, 100, 160, 220], abs=6)


def test_a_high_rate_is_sampled_by_time(tmp_path: Path) -> None:
    clip = video.read(container(tmp_path / "a.mp4", [100] * 60, fps=60))
    assert len(clip) == 8
    torch.testing.assert_close(clip.times_seconds, torch.arange(8) / 8, rtol=0, atol=0.02)


def test_a_variable_rate_is_followed_by_its_stamps(tmp_path: Path) -> None:
    stamps = [0, 500, 600, 3000]
    path = container(tmp_path / "a.mkv", [60, 120, 180, 240], stamps_milliseconds=stamps)
    clip = video.read(path)
    assert clip.times_seconds.tolist() == pytest.approx([0, 0.5, 3.0], abs=2e-3)
    assert brightness(clip) == pytest.approx([40, 100, 220], abs=6)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_marks_are_applied(rotation: int, tmp_path: Path) -> None:
    frame = video.read(container(tmp_path / "a.mp4", [200], rotation=rotation)).frames[0, 0].int()
    stored = torch.full((32, 48), 200)
    stored[:, :24] -= 40
    expected = torch.rot90(stored, rotation // 90)
    assert frame.shape == expected.shape
    assert (frame - expected).abs().float().mean() < 4


def test_large_frames_and_long_videos_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = container(tmp_path / "a.mp4", [100] * 40, size=(640, 360))
    assert video.read(path).frames.shape == (40, 3, 144, 256)
    monkeypatch.setattr(sampling, "MAX_FRAMES", 12)
    clip = video.read(path)
    assert 6 <= len(clip) <= 12
    assert len(clip.times_seconds.diff().unique()) == 1
    assert clip.times_seconds[-1] >= 4
    monkeypatch.setattr(sampling, "MAX_SOURCE_FRAMES", 30)
    with pytest.raises(ReadError, match="cut it into pieces"):
        video.read(path)
    monkeypatch.setattr(sampling, "MAX_SOURCE_PIXELS", 1000)
    with pytest.raises(ReadError, match="640 × 360"):
        video.read(path)


def animation(format: str, delays: Any, **options: Any) -> bytes:
    frames = [Image.new("RGB", (20, 10), (level, level, level)) for level in (60, 120, 180, 240)]
    file = BytesIO()
    frames[0].save(
        file, format, save_all=True, append_images=frames[1:], duration=delays, **options
    )
    return file.getvalue()


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_animations_keep_their_delays(format: str) -> None:
    clip = video.read(animation(format, [200, 400, 200, 1000]))
    assert clip.frames.shape == (4, 3, 10, 20)
    assert clip.times_seconds.tolist() == pytest.approx([0, 0.2, 0.6, 0.8])
    assert brightness(clip) == pytest.approx([60, 120, 180, 240], abs=3)


def test_an_animation_without_delays_plays_as_in_a_browser() -> None:
    assert video.read(animation("GIF", 0)).times_seconds.tolist() == pytest.approx([0, 0.2, 0.3])


def test_transparency_of_an_animation_is_laid_over_white() -> None:
    clear, solid = (Image.new("RGBA", (8, 8), (*RED, alpha)) for alpha in (0, 255))
    file = BytesIO()
    clear.save(file, "WEBP", save_all=True, append_images=[solid], lossless=True, duration=200)
    clip = video.read(file.getvalue())
    assert clip.frames[0].min() == 255
    assert clip.frames[-1, :, 4, 4].tolist() == list(RED)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_a_still_picture_is_one_frame(format: str) -> None:
    file = BytesIO()
    Image.new("RGB", (8, 8), RED).save(file, format)
    clip = video.read(file.getvalue())
    assert (len(clip), clip.duration_seconds) == (1, 0.0)


@pytest.mark.parametrize("fps", [5, 8, 20, 30])
def test_a_clip_ends_where_its_last_frame_does_kept_or_not(fps: int) -> None:
    clip = video.read((np.zeros((2 * fps, 4, 4, 3), np.uint8), fps))
    assert clip.duration_seconds == 2.0
    assert [s.end_seconds for s in video.segments(clip, 0.5)] == [0.5, 1.0, 1.5, 2.0]


def test_frames_in_memory() -> None:
    values = np.stack([np.full((6, 9, 3), 20 * t, np.uint8) for t in range(5)])
    pictures = [Image.fromarray(value) for value in values]
    for frames in (values, torch.from_numpy(values), pictures):
        clip = video.read((frames, 4))
        assert clip.frames.shape == (5, 3, 6, 9)
        assert clip.times_seconds.tolist() == [0, 0.25, 0.5, 0.75, 1.0]
        assert brightness(clip) == [0, 20, 40, 60, 80]
        assert clip.duration_seconds == pytest.approx(1.25)
    assert video.read(clip) is clip


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ((np.zeros((2, 4, 4, 3), np.uint8), 0), "fps"),
        ((np.zeros((2, 4, 4, 3), np.uint8), float("nan")), "fps"),
        ((np.zeros((2, 4, 4, 3), np.uint8),), "fps"),
        ((np.zeros((2, 3, 4, 4), np.uint8), 8), r"wanted uint8 \(T, H, W, 3\)"),
        ((np.zeros((2, 4, 4, 3)), 8), "wanted uint8"),
        ((np.zeros((0, 4, 4, 3), np.uint8), 8), "0 seconds"),
        (([], 8), "0 seconds"),
        (("words", 8), "wanted an array or PIL images"),
        (np.zeros((2, 4, 4, 3), np.uint8), "a video is"),
        (StringIO("words"), "binary mode"),
    ],
)
def test_other_forms_are_refused(source: Any, reason: str) -> None:
    with pytest.raises(ReadError, match=reason):
        video.read(source)


def test_files_without_a_picture(tmp_path: Path) -> None:
    sound = tmp_path / "sound.mp4"
    with av.open(sound, "w") as file:
        stream = file.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        file.mux([*stream.encode(frame), *stream.encode(None)])
    with pytest.raises(ReadError, match="no video stream"):
        video.read(sound)
    empty = tmp_path / "empty.avi"
    with av.open(empty, "w") as file:
        stream = file.add_stream("mpeg4", rate=8, width=48, height=32)
        stream.pix_fmt = "yuv420p"
        file.start_encoding()
    with pytest.raises(ReadError, match="0 seconds"):
        video.read(empty)
    with pytest.raises(ReadError, match="wanted MP4"):
        video.read(b"\xff\xd8\xff\xe0 a photo is no video")


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    data = container(tmp_path / "a.mp4", [60, 120, 180] * 8).read_bytes()
    with pytest.raises(ReadError, match="bytes"):
        video.read(data[: len(data) // 2])
    with pytest.raises(ReadError, match="bytes"):
        video.read(animation("WEBP", 200)[:90])


def test_a_file_is_read_by_its_content_not_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(animation("GIF", 200))
    assert len(video.read(str(path))) == 4


@pytest.mark.parametrize(
    ("format", "still"), [("GIF", Claim.COULD), ("WEBP", Claim.COULD), ("PNG", Claim.NO)]
)
def test_claims_of_animations_and_stills(format: str, still: Claim, tmp_path: Path) -> None:
    file = BytesIO()
    Image.new("RGB", (8, 8), RED).save(file, format)
    for data, expected in ((animation(format, 100), Claim.OWNS), (file.getvalue(), still)):
        path = tmp_path / f"a.{format.lower()}"
        path.write_bytes(data)
        opened = BytesIO(b"before" + data)
        opened.seek(6)
        assert video.claim(path) == expected
        assert video.claim(data) == expected
        assert video.claim(BytesIO(data)) == expected


def test_claims_of_other_forms(tmp_path: Path) -> None:
    mp4 = container(tmp_path / "a.mp4", [200])
    opened = BytesIO(mp4.read_bytes())
    assert video.claim(opened) == Claim.OWNS
    assert opened.tell() == 0
    picture = Image.new("L", (4, 4))
    clip = video.example_samples(1)[0]
    owned = (mp4, mp4.read_bytes(), tmp_path / "b.WEBM", ([picture], 8.0), clip)
    for source in owned:
        assert video.claim(source) == Claim.OWNS
    sound = b"\0\0\0\x20ftypM4A \0\0\0\0"
    array = np.zeros((2, 4, 4, 3), np.uint8)
    others = (sound, b"", "a.mp4", array, (array, 8), ([1], 8), ([], 8), StringIO("x"), picture)
    for source in others:
        assert video.claim(source) == Claim.NO
    assert video.claim(tmp_path / "gone.gif") == Claim.COULD


def test_real_clips() -> None:
    if not (DATA / "sample_videos").is_dir():
        pytest.skip("the real data is not beside this checkout")
    for path in sorted((DATA / "sample_videos" / "clips").iterdir())[:6]:
        clip = video.read(path)
        assert clip.frames.shape[2:] in ((90, 160), (120, 160))
        assert 0.5 < clip.duration_seconds < 4
    for path in sorted((DATA / "weather_icons_animated" / "clips").iterdir())[:6]:
        assert video.claim(path) == Claim.OWNS
        assert video.read(path).frames.shape[1:] == (3, 96, 96)


def test_the_preview_is_a_small_animation_of_the_same_length() -> None:
    clip = Clip(torch.randint(0, 256, (40, 3, 200, 100), dtype=torch.uint8), torch.arange(40) / 8)
    preview = video.preview(clip)
    assert preview.mime == "image/webp"
    again = video.read(preview.data)
    assert again.frames.shape[1:] == (3, 128, 64)
    assert len(again) <= 24
    assert again.duration_seconds == pytest.approx(5, abs=0.2)
    assert video.preview(Clip(clip.frames[:1], clip.times_seconds[:1])).data
