"""Files as they come: clocks, pixels and damage of every kind."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from omnialign_video import Clip, VideoModality

from omnialign import ReadError

VIDEO = VideoModality()


def write(
    path: Path,
    stamps_milliseconds: list[int],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    size: tuple[int, int] = (48, 32),
    alpha: int | None = None,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Frames that show their own number, 20 brighter each, with a red top left quarter."""
    with av.open(path, "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=8, width=size[0], height=size[1], options=options)
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for number, stamp in enumerate(stamps_milliseconds):
            values = np.full((size[1], size[0], 3), 40 + 20 * (number % 10), np.uint8)
            values[: size[1] // 2, : size[0] // 2] = (255, 0, 0)
            if alpha is None:
                frame = av.VideoFrame.from_ndarray(values, "rgb24")
            else:
                clear = np.full((size[1], size[0], 1), alpha, np.uint8)
                frame = av.VideoFrame.from_ndarray(np.dstack([values, clear]), "rgba")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def numbers(clip: Clip) -> list[int]:
    """Which frames they are, by the brightness of the bottom right quarter."""
    H, W = clip.frames.shape[2:]
    quarter = clip.frames[:, :, H // 2 + 1 :, W // 2 + 1 :].float().mean((1, 2, 3))
    return ((quarter - 40) / 20).round().int().tolist()


def is_red_top_left(clip: Clip) -> bool:
    red, green, blue = clip.frames[0, :, 3, 3].tolist()
    return red > 230 and green < 20 and blue < 20


EVEN = [125 * k for k in range(8)]
UNEVEN = [0, 30, 60, 90, 1000, 1040, 2500, 2530]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_frames_are_chosen_by_their_time_not_by_their_number(suffix: str, tmp_path: Path) -> None:
    clip = VIDEO.read(write(tmp_path / f"a{suffix}", UNEVEN))
    assert numbers(clip) == [0, 4, 6]
    torch.testing.assert_close(clip.times_seconds, torch.tensor([0, 1, 2.5]), rtol=0, atol=2e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_clock_that_starts_late_counts_from_the_first_frame(suffix: str, tmp_path: Path) -> None:
    clip = VIDEO.read(write(tmp_path / f"a{suffix}", [7000 + stamp for stamp in EVEN]))
    assert numbers(clip) == list(range(8))
    torch.testing.assert_close(clip.times_seconds, torch.arange(8) / 8, rtol=0, atol=2e-3)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_b_frames_come_in_the_order_they_are_shown(codec: str, tmp_path: Path) -> None:
    clip = VIDEO.read(write(tmp_path / "a.mp4", EVEN, codec, options={"bf": "3", "g": "24"}))
    assert numbers(clip) == list(range(8))
    torch.testing.assert_close(clip.times_seconds, torch.arange(8) / 8, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "size"),
    [
        ("odd.mkv", "libx264", "yuv444p", (47, 31)),
        ("odd.webm", "libvpx-vp9", "yuv420p", (47, 31)),
        ("ten.mp4", "libx264", "yuv420p10le", (48, 32)),
        ("ten.mov", "prores_ks", "yuv422p10le", (48, 32)),
        ("full.mov", "mjpeg", "yuvj420p", (48, 32)),
        ("alpha.webm", "libvpx-vp9", "yuva420p", (48, 32)),
        ("rgb.mkv", "ffv1", "bgra", (48, 32)),
    ],
)
def test_sizes_and_pixel_formats(
    name: str, codec: str, pixels: str, size: tuple[int, int], tmp_path: Path
) -> None:
    clip = VIDEO.read(write(tmp_path / name, EVEN, codec, pixels, size))
    assert clip.frames.shape == (8, 3, size[1], size[0])
    assert numbers(clip) == list(range(8))
    assert is_red_top_left(clip)


@pytest.mark.parametrize("pixels", ["gray", "gray10le"])
def test_grey_is_three_equal_channels(pixels: str, tmp_path: Path) -> None:
    frames = VIDEO.read(write(tmp_path / "a.mkv", EVEN, pixels=pixels)).frames
    assert torch.equal(frames[:, 0], frames[:, 1])
    assert torch.equal(frames[:, 0], frames[:, 2])
    assert (frames[:, 0, -3, -3].int().diff() > 0).all()


@pytest.mark.parametrize(("aspect", "shape"), [((2, 1), (32, 96)), ((1, 2), (32, 24))])
def test_pixels_that_are_not_square(
    aspect: tuple[int, int], shape: tuple[int, int], tmp_path: Path
) -> None:
    clip = VIDEO.read(write(tmp_path / "a.mp4", EVEN, aspect=Fraction(*aspect)))
    assert clip.frames.shape[2:] == shape
    assert is_red_top_left(clip)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [("a.mov", "png", "rgba"), ("b.mov", "prores_ks", "yuva444p10le"), ("c.mkv", "ffv1", "bgra")],
)
def test_transparency_is_laid_over_white(
    name: str, codec: str, pixels: str, tmp_path: Path
) -> None:
    for alpha, expected in ((0, 255), (128, 147), (255, 40)):
        path = write(tmp_path / name, [0], codec, pixels, alpha=alpha)
        shade = VIDEO.read(path).frames[0, :, -3, -3].tolist()
        assert shade == pytest.approx([expected] * 3, abs=3)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
def test_a_still_picture_is_one_frame(name: str, tmp_path: Path) -> None:
    clip = VIDEO.read(write(tmp_path / name, [0]))
    assert (len(clip), clip.duration_seconds) == (1, 0.0)
    (segment,) = VIDEO.segments(clip, 4.0)
    assert (segment.start_seconds, segment.end_seconds) == (0, 0)


def test_a_matrix_that_turns_halfway_takes_the_nearer_quarter(tmp_path: Path) -> None:
    for degrees, size in ((10, (32, 48)), (-10, (32, 48)), (80, (48, 32))):
        path = tmp_path / "a.mp4"
        with av.open(path, "w") as file:
            stream = file.add_stream("libx264", rate=8, width=48, height=32)
            stream.pix_fmt = "yuv420p"
            stream.set_display_rotation(degrees)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8))))
            file.mux(stream.encode(None))
        assert VIDEO.read(path).frames.shape[2:] == size


LONG = [125 * k for k in range(80)]


@pytest.mark.parametrize("suffix", [".mkv", ".webm"])
@pytest.mark.parametrize("tail", ["cut", "zeros", "noise"])
def test_a_damaged_tail_is_left_out(suffix: str, tail: str, tmp_path: Path) -> None:
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    path = write(tmp_path / f"a{suffix}", LONG, codec)
    data = path.read_bytes()
    keep = len(data) // 2
    rest: dict[str, Any] = {
        "cut": b"",
        "zeros": bytes(len(data) - keep),
        "noise": np.random.default_rng(0).bytes(len(data) - keep),
    }
    clip = VIDEO.read(data[:keep] + rest[tail])
    assert 10 < len(clip) < 70
    whole = VIDEO.read(data)
    assert torch.equal(clip.frames[:10], whole.frames[:10])


@pytest.mark.parametrize("tail", [b"", bytes(2000)])
def test_damage_that_the_decoder_sees_is_refused(tail: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", LONG, container={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 9 // 10] + tail)
    with pytest.raises(ReadError, match=r"a\.mp4.*damaged or cut short"):
        VIDEO.read(path)
