"""The canonical sample of `audio`.

Axes: C channels, T samples in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Waveform:
    """Sound with its rate."""

    values: Tensor
    """`(C, T)` float32, full scale at -1 and 1, T at least 1."""
    sample_rate_hz: int

    @property
    def seconds(self) -> float:
        return self.values.shape[-1] / self.sample_rate_hz
