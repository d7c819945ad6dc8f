"""Keeps a bounded, even choice of a stream's frames.

Axes: T frames, H height, W width.
"""

from __future__ import annotations

from itertools import pairwise
from statistics import median_low
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from omnialign import ReadError
from omnialign_video.clip import Clip

MAX_FRAMES_PER_SECOND = 8.0
MAX_FRAMES = 960
"""Two minutes at 8 frames a second; a longer video is kept at a lower rate."""
MAX_SIDE = 256
"""Pixels; with `MAX_FRAMES` at most 190 MB."""
MAX_SOURCE_FRAMES = 500_000
"""That are looked at: 4.6 hours at 30 frames a second."""
MAX_SOURCE_PIXELS = 8192 * 8192
"""Of one frame, read from the header before decoding."""

Frame = np.ndarray[Any, Any]
"""uint8 RGB `(H, W, 3)`."""
Kept = TypeVar("Kept")


class Picker(Generic[Kept]):
    """Decides frame by frame what to keep, knowing neither the rate nor the length.

    The first frame at or after each tick of a clock is kept. When there are too many, every second
    one goes and the clock runs at half its rate.
    """

    def __init__(self, source: object) -> None:
        self.source = source
        self.seen: list[float] = []
        self.interval_seconds = 1 / MAX_FRAMES_PER_SECOND
        self.kept: list[Kept] = []
        self.times: list[float] = []
        self.next_tick = 0

    def wants(self, time: float) -> bool:
        """Whether the frame that appears at `time`, in seconds from the first, is to be kept.

        Raises `ReadError` after `MAX_SOURCE_FRAMES`.
        """
        self.seen.append(time)
        if len(self.seen) > MAX_SOURCE_FRAMES:
            raise ReadError(
                self.source, f"it has more than {MAX_SOURCE_FRAMES} frames: cut it into pieces"
            )
        return time / self.interval_seconds >= self.next_tick - 1e-3

    def add(self, frame: Kept, time: float) -> None:
        """Keeps a frame, or what stands for it."""
        self.kept.append(frame)
        self.times.append(time)
        if len(self.kept) > MAX_FRAMES:
            self.interval_seconds *= 2
            self.kept, self.times = self.kept[::2], self.times[::2]
        self.next_tick = int(time / self.interval_seconds + 1e-3) + 1

    @property
    def end_seconds(self) -> float:
        """When the last frame that was seen stops, kept or not: after a median step.

        A single frame takes no time.
        """
        times = sorted(self.seen)
        steps = [after - before for before, after in pairwise(times)]
        return round(times[-1] + (median_low(steps) if steps else 0.0), 6)


def clip_of(picker: Picker[Frame]) -> Clip:
    """What was kept; raises `ReadError` where that is nothing."""
    if not picker.kept:
        raise ReadError(picker.source, "it lasts 0 seconds: no frame can be decoded")
    frames = torch.from_numpy(np.stack(picker.kept)).permute(0, 3, 1, 2).contiguous()
    times = torch.tensor(picker.times, dtype=torch.float32)
    return Clip(frames, times, picker.end_seconds)


def bounded_size(source: object, height: int, width: int) -> tuple[int, int]:
    """Height and width of a kept frame; raises `ReadError` for more than `MAX_SOURCE_PIXELS`."""
    if not 0 < height * width <= MAX_SOURCE_PIXELS:
        raise ReadError(
            source,
            f"its frames are {width} × {height} pixels; wanted 1 to {MAX_SOURCE_PIXELS}: "
            "scale it down first",
        )
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
