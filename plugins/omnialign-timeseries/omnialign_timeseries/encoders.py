"""Encoders of series, trained from scratch.

Axes: N samples, K windows of a sample, B = N · K of them, T steps in time, C channels, W width.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from omnialign import Encoder, OmniAlignError, pad_and_stack
from omnialign_timeseries.series import Series

MIN_TAIL = 0.1
"""Of a window: a shorter rest at the end is left out."""
MIN_SPREAD = 0.05
"""Added to a channel's standard deviation, in units of `scale`: keeps quiet channels quiet."""


@dataclass(frozen=True)
class Windows:
    """A series to windows `(K, T, C)` of equal length, at the encoder's own rate.

    A series without a rate is taken to have that rate already; another rate is resampled linearly,
    antialiased. A series shorter than a window holds its last value to the window's end. A longer
    one gives consecutive windows, the last of which ends where the series ends.
    """

    num_channels: int
    sample_rate_hz: float
    window_seconds: float

    @property
    def num_steps(self) -> int:
        return round(self.window_seconds * self.sample_rate_hz)

    def __call__(self, series: Series) -> Tensor:
        values, size = series.values, self.num_steps
        if values.shape[1] != self.num_channels:
            names = f" ({', '.join(series.channels)})" if series.channels else ""
            raise OmniAlignError(
                f"the encoder takes {self.num_channels} channels, the series has "
                f"{values.shape[1]}{names}; set "
                "towers.timeseries.encoder.num_channels, or choose channels"
            )
        if series.sample_rate_hz not in (None, self.sample_rate_hz):
            values = resampled(values, self.sample_rate_hz / series.sample_rate_hz)
        spare = len(values) - size
        if spare <= 0:
            return torch.cat([values, values[-1:].expand(-spare, -1)])[None]
        count = max(1, math.ceil(len(values) / size - MIN_TAIL))
        starts = [min(i * size, spare) for i in range(count)]
        return torch.stack([values[start : start + size] for start in starts])


def resampled(values: Tensor, factor: float) -> Tensor:
    """`(T, C)` with `factor` times as many steps."""
    length = max(1, round(len(values) * factor))
    image = values.T[None, :, None, :]  # time must be the last axis: torch leaves the other one out
    image = functional.interpolate(image, size=(1, length), mode="bilinear", antialias=True)
    return image[0, :, 0].T


class SeriesEncoder(Encoder):
    """Averages the features of a sample's windows; what a window's features are is `encode`'s.

    A window is seen twice: in the sensors' units, compressed by asinh, which keeps offsets such as
    gravity; and standardised by its own mean and deviation, which keeps the shape.
    """

    def __init__(
        self, num_channels: int, sample_rate_hz: float, window_seconds: float, scale: float
    ) -> None:
        super().__init__()
        for name, value in (("num_channels", num_channels), ("sample_rate_hz", sample_rate_hz)):
            if value <= 0:
                raise OmniAlignError(f"wanted {name} above 0, found {value}")
        if scale <= 0:
            raise OmniAlignError(f"wanted scale above 0, found {scale}")
        self.preprocess = Windows(num_channels, sample_rate_hz, window_seconds)
        self.num_steps = self.preprocess.num_steps
        if self.num_steps < 8:
            raise OmniAlignError(
                f"wanted a window of at least 8 steps, found {window_seconds} s at "
                f"{sample_rate_hz} Hz"
            )
        self.window = window_seconds
        self.collate = pad_and_stack
        self.scale = scale

    @abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """Channels `(B, 2C, T)` to features `(B, W)`."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        values, mask = batch["values"], batch["mask"]
        sample, place = mask.nonzero(as_tuple=True)
        encoded = self.encode(self.channels(values[sample, place]))
        total = encoded.new_zeros(mask.shape[0], self.width).index_add(0, sample, encoded)
        return total / mask.sum(1, keepdim=True)

    def channels(self, values: Tensor) -> Tensor:
        """Windows `(B, T, C)` to both views of them `(B, 2C, T)`, in float32."""
        values = values.float().mT / self.scale
        mean, spread = values.mean(-1, keepdim=True), values.std(-1, correction=0, keepdim=True)
        return torch.cat([values.asinh(), (values - mean) / (spread + MIN_SPREAD)], dim=1)


class ResidualBlock(nn.Module):
    """Two convolutions over time, pre-activated (He et al. 2016), with group norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, inputs),
            nn.ReLU(),
            nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.GroupNorm(8, outputs),
            nn.ReLU(),
            nn.Dropout1d(dropout),
            nn.Conv1d(outputs, outputs, kernel, 1, kernel // 2, bias=False),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool1d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
            nn.Conv1d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.layers(x)


class SeriesConv(SeriesEncoder):
    """A residual convolution over time, pooled by mean and maximum.

    `scale` is the size of ordinary values in the sensors' units; `depth` counts the blocks that
    halve the time axis.
    """

    def __init__(
        self,
        num_channels: int = 9,
        sample_rate_hz: float = 50.0,
        window_seconds: float = 2.56,
        scale: float = 1.0,
        width: int = 128,
        depth: int = 3,
        kernel: int = 5,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(num_channels, sample_rate_hz, window_seconds, scale)
        if width <= 0 or width % 16:
            raise OmniAlignError(f"wanted width divisible by 16, found {width}")
        if kernel % 2 == 0:
            raise OmniAlignError(f"wanted an odd kernel, found {kernel}")
        if depth < 1:
            raise OmniAlignError(f"wanted depth of at least 1, found {depth}")
        self.width = width
        sizes = [width // 2, *[width] * depth]
        self.layers = nn.Sequential(
            nn.Conv1d(2 * num_channels, sizes[0], 7, 2, 3),
            ResidualBlock(sizes[0], sizes[0], kernel, 1, dropout),
            *[ResidualBlock(a, b, kernel, 2, dropout) for a, b in pairwise(sizes)],
            nn.GroupNorm(8, width),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, width))

    def encode(self, values: Tensor) -> Tensor:
        hidden = self.layers(values)
        return self.head(torch.cat([hidden.mean(-1), hidden.amax(-1)], dim=-1))


class PatchTransformer(SeriesEncoder):
    """A transformer over patches of time, as in PatchTST (Nie et al. 2023), with the channels of a
    patch in one token."""

    def __init__(
        self,
        num_channels: int = 9,
        sample_rate_hz: float = 50.0,
        window_seconds: float = 2.56,
        scale: float = 1.0,
        patch_steps: int = 8,
        width: int = 256,
        depth: int = 6,
        num_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(num_channels, sample_rate_hz, window_seconds, scale)
        if width % num_heads:
            raise OmniAlignError(f"wanted width divisible by num_heads, found {width}, {num_heads}")
        if not 1 <= patch_steps <= self.num_steps:
            raise OmniAlignError(
                f"wanted patch_steps from 1 to {self.num_steps}, found {patch_steps}"
            )
        self.width = width
        self.patches = nn.Conv1d(2 * num_channels, width, patch_steps, patch_steps)
        self.position = nn.Parameter(torch.randn(self.num_steps // patch_steps, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width,
            num_heads,
            4 * width,
            dropout,
            "gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, depth, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def encode(self, values: Tensor) -> Tensor:
        return self.layers(self.patches(values).mT + self.position).mean(1)
