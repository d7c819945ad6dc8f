"""The canonical form of a video.

Axes: T frames, H height, W width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnialign import Segment

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames and when each appears; a frame stands until the next.

    `frames` is uint8 RGB `(T, 3, H, W)`, T at least 1; `times_seconds` is float32 `(T,)`,
    increasing, counted from the start of the file. `end_seconds` is when the last frame stops; None
    where nobody said it: after a step like those before it.
    """

    frames: Tensor
    times_seconds: Tensor
    end_seconds: float | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def duration_seconds(self) -> float:
        """As `shown_seconds`."""
        return shown_seconds(self.times_seconds, self.end_seconds)

    def split(self, window_seconds: float) -> list[Segment[Clip]]:
        """Consecutive stretches of equal length, at most `window_seconds`; none empty.

        Times stay those of the whole clip.
        """
        found = windows(self.times_seconds, window_seconds, self.end_seconds)
        if len(found) == 1:
            return [Segment(self, *found[0][1:])]
        return [
            Segment(Clip(self.frames[at], self.times_seconds[at], end), start, end)
            for at, start, end in found
        ]


def shown_seconds(times_seconds: Tensor, end_seconds: float | None = None) -> float:
    """From the first frame to `end_seconds`.

    Without it the last frame is taken to stand for the median of the steps before it; a single
    frame for 0.
    """
    if end_seconds is not None:
        return end_seconds - float(times_seconds[0])
    shown = float(times_seconds[-1] - times_seconds[0])
    return shown + float(times_seconds.diff().median()) if len(times_seconds) > 1 else 0.0


def windows(
    times_seconds: Tensor, window_seconds: float, end_seconds: float | None = None
) -> list[tuple[Tensor, float, float]]:
    """Cuts frames that appear at `(T,)` evenly: which frames, a mask `(T,)`, from when, to when."""
    duration, start = shown_seconds(times_seconds, end_seconds), float(times_seconds[0])
    num_windows = max(1, math.ceil(duration / window_seconds - 1e-6))
    length = duration / num_windows
    if num_windows == 1:
        return [(times_seconds >= start, start, start + duration)]
    index = ((times_seconds - start) / length + 1e-4).long().clamp(max=num_windows - 1)
    found = index.unique_consecutive().tolist()
    ends = [*found[1:], num_windows]
    return [
        (index == k, start + k * length, start + end * length)
        for k, end in zip(found, ends, strict=True)
    ]
