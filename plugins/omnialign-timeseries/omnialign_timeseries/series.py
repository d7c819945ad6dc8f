"""The canonical sample of `timeseries`.

Axes: T steps in time, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Series:
    """Regularly sampled values in the units of their sensors."""

    values: Tensor
    """`(T, C)` float32, finite, T at least 1."""
    sample_rate_hz: float | None = None
    """None where nobody declared it: an encoder then assumes its own."""
    channels: tuple[str, ...] | None = None
