"""The canonical sample of `audio`.

Axes: C channels, T samples in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omnialign import Segment

if TYPE_CHECKING:
    from torch import Tensor


MIN_TAIL = 0.1
"""Of a window: a shorter rest at the end of a recording is not a window of its own."""


@dataclass(frozen=True, eq=False)
class Waveform:
    """Sound with its rate."""

    values: Tensor
    """`(C, T)` float32, full scale at -1 and 1, T at least 1."""
    sample_rate_hz: int

    @property
    def seconds(self) -> float:
        return self.values.shape[-1] / self.sample_rate_hz

    @property
    def length(self) -> int:
        """T."""
        return self.values.shape[-1]

    def stretch(self, start: int, stop: int) -> Waveform:
        """From `start` to before `stop`, in samples; the whole is itself."""
        if stop - start == self.length:
            return self
        return Waveform(self.values[:, start:stop], self.sample_rate_hz)

    def split(self, window_seconds: float) -> list[Segment[Waveform]]:
        """Cut as `windows` says; start and end are counted from the first sample."""
        rate = self.sample_rate_hz
        cuts = windows(self.length, rate, window_seconds)
        return [Segment(self.stretch(a, b), a / rate, b / rate) for a, b in cuts]


def window_length(sample_rate_hz: int, seconds: float) -> int:
    """In samples."""
    return max(1, math.floor(seconds * sample_rate_hz + 1e-6))


def windows(length: int, sample_rate_hz: int, seconds: float) -> list[tuple[int, int]]:
    """Start and stop, in samples, of consecutive windows; the last may be shorter.

    A rest of less than `MIN_TAIL` of a window is left out, unless it is all there is.
    """
    step = window_length(sample_rate_hz, seconds)
    count = max(1, math.ceil(length / step - MIN_TAIL))
    return [(i * step, min((i + 1) * step, length)) for i in range(count)]
