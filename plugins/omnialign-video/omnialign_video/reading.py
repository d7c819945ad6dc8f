"""Clips from files and from the forms people already hold.

Containers are decoded by FFmpeg through PyAV, animated pictures by Pillow.

Axes: T frames, H height, W width.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from io import BytesIO
from os import PathLike
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from omnialign import ReadError
from omnialign_video.clip import Clip
from omnialign_video.sampling import MAX_SOURCE_PIXELS, Frame, Picker, bounded_size, clip_of
from omnialign_video.sniffing import PICTURE_KINDS, kind

WANTED = "MP4, MOV, WebM, MKV, AVI, GIF, animated WebP or PNG"
DEFAULT_DELAY_SECONDS = 0.1
"""For frames of an animation that state 10 ms or less: what browsers do."""


def read_clip(source: Any) -> Clip:
    """Any readable form to a clip; raises `ReadError`."""
    if isinstance(source, Clip):
        return source
    if isinstance(source, tuple):
        return _from_frames(source)
    with decoder_errors(source):
        if isinstance(source, str | PathLike):
            with open(source, "rb") as file:
                return _from_file(source, file)
        if isinstance(source, bytes | bytearray | memoryview):
            return _from_file(source, BytesIO(source))
        if hasattr(source, "read") and hasattr(source, "seek"):
            return _from_file(source, source)
    raise ReadError(
        source,
        "a video is a path, bytes, an open binary file, a Clip, or (frames, fps) with frames "
        "(T, H, W, 3) or a list of PIL images",
    )


@contextmanager
def decoder_errors(source: Any) -> Generator[None]:
    """Turns whatever a decoder raises into `ReadError`, and keeps its warnings quiet.

    Decoders raise many types on hostile input (FFmpegError, SyntaxError, struct.error …), so all
    are taken.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ReadError:
            raise
        except UnidentifiedImageError:
            raise ReadError(source, f"it is no video; wanted {WANTED}") from None
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise ReadError(source, error.strerror or str(error)) from error
        except Exception as error:
            found = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise ReadError(source, f"{found}; is it damaged or cut short?") from error


def _from_file(source: Any, file: Any) -> Clip:
    """Reads by content, whatever the suffix says."""
    head = file.read(16)
    if not isinstance(head, bytes):
        raise ReadError(source, "the file is open as text; open it in binary mode ('rb')")
    file.seek(0)
    found = kind(head)
    if found is None:
        raise ReadError(source, f"it is no video; wanted {WANTED}")
    if found in PICTURE_KINDS:
        with Image.open(file, formats=PICTURE_KINDS) as picture:
            return _from_animation(source, picture)
    # PyAV's stubs do not follow the mode through the Any of an open file.
    with cast(InputContainer, av.open(file, "r", format=found)) as container:
        return _from_container(source, container)


def _from_container(source: Any, container: InputContainer) -> Clip:
    if not container.streams.video:
        raise ReadError(source, "it has no video stream; is it a sound recording?")
    stream = container.streams.video[0]
    size = size_and_limits(source, stream)
    frame_seconds = 1 / float(stream.average_rate or 25)
    picker = Picker[Frame](source)
    first: float | None = None
    time = -frame_seconds
    for frame in container.decode(stream):
        if frame.pts is None:
            time += frame_seconds
        else:
            first = frame.time if first is None else first
            time = frame.time - first
        if picker.wants(time):
            picker.add(rgb(frame, size), time)
    return clip_of(picker)


def size_and_limits(source: Any, stream: VideoStream) -> tuple[int, int]:
    """Height and width of a kept frame; the decoder will refuse frames that are too large."""
    stream.codec_context.options = {"max_pixels": str(MAX_SOURCE_PIXELS)}
    width = round(stream.width * float(stream.sample_aspect_ratio or 1))
    return bounded_size(source, stream.height, width)


def rgb(frame: av.VideoFrame, size: tuple[int, int]) -> Frame:
    """A decoded frame as RGB `(H, W, 3)`, scaled to `size` = (H, W), then turned upright.

    Transparency is laid over white.
    """
    height, width = size
    has_alpha = any(component.is_alpha for component in frame.format.components)
    wanted = "rgba" if has_alpha else "rgb24"
    small = frame.reformat(width, height, wanted, interpolation="AREA").to_ndarray()
    if has_alpha:
        alpha = small[..., 3:] / np.float32(255)
        small = (small[..., :3] * alpha + 255 * (1 - alpha)).round().astype(np.uint8)
    return np.rot90(small, round(frame.rotation / 90))


def _from_animation(source: Any, picture: Image.Image) -> Clip:
    """GIF, WebP or APNG; a still picture gives one frame. Transparency is laid over white."""
    size = bounded_size(source, picture.height, picture.width)
    picker = Picker[Frame](source)
    time, index = 0.0, 0
    while True:
        try:
            picture.seek(index)
        except EOFError:
            return clip_of(picker)
        picture.load()
        if picker.wants(time):
            picker.add(_small(picture, size), time)
        delay_seconds = picture.info.get("duration", 0) / 1000
        time += delay_seconds if delay_seconds > 0.01 else DEFAULT_DELAY_SECONDS
        index += 1


def _from_frames(source: tuple[Any, ...]) -> Clip:
    """`(frames, fps)`."""
    frames, fps = source if len(source) == 2 else (None, None)
    if not isinstance(fps, int | float) or not 0 < fps < math.inf:
        raise ReadError(source, f"wanted (frames, fps) with fps above 0, found fps {fps!r}")
    if isinstance(frames, list | tuple) and all(isinstance(f, Image.Image) for f in frames):
        pictures = list(frames)
    else:
        values = frames.detach().cpu().numpy() if isinstance(frames, Tensor) else frames
        if not isinstance(values, np.ndarray):
            raise ReadError(source, f"frames are {type(frames)}; wanted an array or PIL images")
        if values.ndim != 4 or values.shape[3] != 3 or values.dtype != np.uint8:
            raise ReadError(
                source,
                f"frames are {values.dtype} {values.shape}; wanted uint8 (T, H, W, 3)",
            )
        pictures = [np.ascontiguousarray(value) for value in values]
    if not pictures:
        raise ReadError(source, "it lasts 0 seconds: there are no frames; wanted one or more")
    picker = Picker[Frame](source)
    size: tuple[int, int] | None = None
    for index, picture in enumerate(pictures):
        if picker.wants(index / fps):
            with decoder_errors(source):
                picture = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
                size = size or bounded_size(source, picture.height, picture.width)
                picker.add(_small(picture, size), index / fps)
    return clip_of(picker)


def _small(picture: Image.Image, size: tuple[int, int]) -> Frame:
    """A picture of any mode as RGB `(H, W, 3)`, scaled to `size` = (H, W)."""
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    H, W = size
    picture = picture.convert("RGB")
    return np.array(picture.resize((W, H), Image.Resampling.BOX, reducing_gap=2))
