"""A long video of which only a stretch is decoded, from the key frame before it.

Axes: T frames.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from omnialign import ReadError, Segment, Unread
from omnialign_video.clip import Clip, windows
from omnialign_video.reading import decoder_errors, read_clip, rgb, size_and_limits
from omnialign_video.sampling import Picker
from omnialign_video.sniffing import PICTURE_KINDS, kind

LONG_SECONDS = 15.0
"""What is shorter is decoded at once, and can then be kept in memory."""
WITH_HIDDEN_FRAMES = ("vp8",)
"""Codecs with packets that are never shown."""


@dataclass(frozen=True, eq=False)
class Footage(Unread[Clip]):
    """Frames of a file that are kept, by their time stamps."""

    name: str
    stamps: Tensor
    """int64 `(T,)`, in the stream's own unit."""
    times_seconds: Tensor
    """float32 `(T,)`, as in `Clip`."""
    end_seconds: float
    key_stamps: Tensor
    """int64 `(K, 2)`: of the file's key frames, when each is shown, and what to seek for it."""
    format: str
    """FFmpeg's name of the container."""

    def segments(self, window: float) -> list[Segment[Unread[Clip]]]:
        return [
            Segment(
                replace(
                    self,
                    stamps=self.stamps[at],
                    times_seconds=self.times_seconds[at],
                    end_seconds=end,
                ),
                start,
                end,
            )
            for at, start, end in windows(self.times_seconds, window, self.end_seconds)
        ]

    def read(self) -> Clip:
        frames = self._decoded()
        if frames is None:  # a file that is not what its packets say: what stands at these times
            whole = read_clip(self.name)
            at = torch.searchsorted(whole.times_seconds, self.times_seconds + 1e-4, right=True) - 1
            frames = whole.frames[at.clamp(min=0)]
        return Clip(frames, self.times_seconds, self.end_seconds)

    def _decoded(self) -> Tensor | None:
        """uint8 `(T, 3, H, W)`; None unless every frame is found, sound, behind its key frame."""
        wanted = set(self.stamps.tolist())
        shown, target = self.key_stamps[self.key_stamps[:, 0] <= min(wanted)][-1].tolist()
        frames: dict[int, np.ndarray[Any, Any]] = {}
        with decoder_errors(self.name), av.open(self.name, format=self.format) as container:
            stream = container.streams.video[0]
            size = size_and_limits(self.name, stream)
            container.seek(target, stream=stream)
            for place, packet in enumerate(container.demux(stream)):
                if place == 0 and (packet.pts is None or packet.pts > shown):
                    return None
                for frame in packet.decode():
                    if frame.pts is None or frame.is_corrupt:
                        return None
                    if frame.pts in wanted:
                        frames[frame.pts] = rgb(frame, size)
                if len(frames) == len(wanted):
                    break
        if len(frames) < len(wanted):
            return None
        stacked = np.stack([frames[stamp] for stamp in self.stamps.tolist()])
        return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def footage(source: Any) -> Footage | None:
    """A long file whose packets say when each frame is shown; None where it must be read whole."""
    if not isinstance(source, str | PathLike):
        return None
    try:
        with open(source, "rb") as file:
            found = kind(file.read(16))
        if found is None or found in PICTURE_KINDS:
            return None
        with decoder_errors(source), av.open(str(source), format=found) as container:
            stream = container.streams.video[0]
            packets = [packet for packet in container.demux(stream) if packet.size]
            unit, codec = stream.time_base, stream.codec_context.name
    except (OSError, IndexError, ReadError):
        return None
    stamps = sorted({packet.pts for packet in packets if packet.pts is not None})
    announced = len(stamps) == len(packets) and not any(
        packet.is_discard or packet.is_corrupt for packet in packets
    )
    if not stamps or not announced or unit is None or codec in WITH_HIDDEN_FRAMES:
        return None
    seconds = [float(stamp) * unit.numerator / unit.denominator for stamp in stamps]
    starts_with_key = packets[0].is_keyframe and packets[0].pts == stamps[0]
    if not starts_with_key or seconds[-1] - seconds[0] <= LONG_SECONDS:
        return None
    picker = Picker[int](source)
    for stamp, time in zip(stamps, seconds, strict=True):
        if picker.wants(time - seconds[0]):
            picker.add(stamp, time - seconds[0])
    by_shown = found == "matroska"  # which seeks by when a frame is shown, others by its decoding
    keys = [
        (p.pts, p.pts if by_shown or p.dts is None else p.dts) for p in packets if p.is_keyframe
    ]
    return Footage(
        str(source),
        torch.tensor(picker.kept),
        torch.tensor(picker.times, dtype=torch.float32),
        picker.end_seconds,
        torch.tensor(sorted(keys)),
        found,
    )
