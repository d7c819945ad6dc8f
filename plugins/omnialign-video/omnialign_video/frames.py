"""A small ConvNet over each frame, then one over time.

Axes: n clips, F frames, S side of the square, C channels, G side of the pooling grid, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from omnialign import Encoder, OmniAlignError
from omnialign_video.fitting import Fit, FitClip, to_float


class Residual(nn.Module):
    """`(…, C, H, W)` to `(…, out_channels, H / stride, W / stride)`.

    Two convolutions behind group norms, beside a shortcut: the pre-activation block of He et al.,
    "Identity Mappings in Deep Residual Networks" (ECCV 2016).
    """

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.norm_in = group_norm(channels)
        self.conv_in = nn.Conv2d(channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm_out = group_norm(out_channels)
        self.conv_out = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
            nn.Conv2d(channels, out_channels, 1, bias=False)
            if channels != out_channels
            else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        change = self.conv_in(silu(self.norm_in(x)))
        return self.shortcut(x) + self.conv_out(silu(self.norm_out(change)))


class TemporalResidual(nn.Module):
    """`(n, W, F)` to the same: each frame beside its neighbours, which tells before from after."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv_in = nn.Conv1d(width, width, 3, padding=1)
        self.conv_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_out(silu(self.conv_in(self.norm(x.mT).mT)))


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of about 16 channels: no statistics are shared between the samples of a batch."""
    groups = max(1, channels // 16)
    return nn.GroupNorm(groups if channels % groups == 0 else 1, channels)


class FramesEncoder(Encoder):
    """A residual ConvNet on every frame, a convolution over time, and a mean.

    Takes uint8 `(n, F, 3, S, S)` and gives `(n, W)`. A frame's last map is averaged into a grid of
    cells that keep their places, so that the convolution over time sees what moves, and whereto.

    Args:
        num_frames: Frames F, spread evenly over the clip or window.
        image_size: The side S; at least the grid's side times 2 to the power of the stages.
        clip_seconds: The longest stretch that is seen at once; longer clips are cut into windows.
        width: W of the features.
        channels: Of each stage; each but the first halves the side, as the stem does.
        grid_size: G; 1 forgets where things are.
        temporal_depth: Residual convolutions over time; each sees one frame further.
        dropout: Of the frames' features.
        fit: How a frame becomes a square.
    """

    def __init__(
        self,
        num_frames: int = 8,
        image_size: int = 48,
        clip_seconds: float = 4.0,
        width: int = 256,
        channels: tuple[int, ...] = (16, 32, 64, 128),
        grid_size: int = 3,
        temporal_depth: int = 2,
        dropout: float = 0.1,
        fit: Fit = "pad",
    ) -> None:
        super().__init__()
        least = 2 ** len(channels) * grid_size
        if not channels or image_size < least or num_frames < 1 or clip_seconds <= 0:
            raise OmniAlignError(
                f"{len(channels)} stages and a grid of {grid_size} want an image_size of at least "
                f"{least} (it is {image_size}), num_frames at least 1 (it is {num_frames}) and "
                f"clip_seconds above 0 (it is {clip_seconds})"
            )
        self.width = width
        self.window = clip_seconds
        self.preprocess = FitClip(num_frames, image_size, fit)
        self.stem = nn.Conv2d(3, channels[0], 3, stride=2, padding=1)
        inputs = (channels[0], *channels[:-1])
        self.blocks = nn.Sequential(
            *(
                Residual(before, after, 2 if stage else 1)
                for stage, (before, after) in enumerate(zip(inputs, channels, strict=True))
            )
        )
        self.norm = group_norm(channels[-1])
        self.pool = nn.AdaptiveAvgPool2d(grid_size)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(channels[-1] * grid_size**2, width)
        self.over_time = nn.Sequential(*(TemporalResidual(width) for _ in range(temporal_depth)))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def forward(self, batch: Tensor) -> Tensor:
        n, F = batch.shape[:2]
        pixels = to_float(batch.flatten(0, 1), self.stem.weight.dtype)
        maps = self.blocks(self.stem(pixels.contiguous(memory_format=torch.channels_last)))
        cells = self.pool(silu(self.norm(maps))).flatten(1)  # (n F, C G²)
        steps = self.project(self.dropout(cells)).view(n, F, self.width)
        return self.head(self.over_time(steps.mT).mean(2))
