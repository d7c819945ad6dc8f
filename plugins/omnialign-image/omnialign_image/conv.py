"""A small residual ConvNet.

Axes: n images, S side of the square, C channels, G side of the pooling grid, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from omnialign import Encoder, OmniAlignError
from omnialign_image.fitting import Fit, FitSquare, to_float


class Residual(nn.Module):
    """`(n, C, H, W)` to `(n, out_channels, H / stride, W / stride)`.

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


def group_norm(channels: int) -> nn.GroupNorm:
    """Groups of about 16 channels: no statistics are shared between the samples of a batch."""
    groups = max(1, channels // 16)
    return nn.GroupNorm(groups if channels % groups == 0 else 1, channels)


class ConvEncoder(Encoder):
    """A residual ConvNet with group norm, made to learn from scratch on a CPU.

    Takes uint8 `(n, 3, S, S)` and gives `(n, W)`. The stem halves the side and each stage but the
    first halves it again.

    Args:
        image_size: The side S; at least 2 to the power of the number of stages.
        width: W of the features.
        channels: Of each stage.
        num_blocks: Residual blocks in each stage.
        grid_size: The last map is averaged into G × G cells, which are laid side by side. 1 forgets
            where things are; more tells left from right.
        dropout: Of the pooled features.
        fit: How a picture becomes a square.
    """

    def __init__(
        self,
        image_size: int = 64,
        width: int = 256,
        channels: tuple[int, ...] = (24, 48, 96, 192),
        num_blocks: int = 1,
        grid_size: int = 2,
        dropout: float = 0.1,
        fit: Fit = "pad",
    ) -> None:
        super().__init__()
        least = 2 ** len(channels) * grid_size
        if not channels or image_size < least:
            raise OmniAlignError(
                f"image_size {image_size} is too small for {len(channels)} stages and a grid of "
                f"{grid_size}; wanted at least one stage and {least} pixels"
            )
        self.width = width
        self.preprocess = FitSquare(image_size, fit)
        self.resolution = image_size
        self.stem = nn.Conv2d(3, channels[0], 3, stride=2, padding=1)
        blocks: list[nn.Module] = []
        previous = channels[0]
        for stage, size in enumerate(channels):
            for block in range(num_blocks):
                blocks.append(Residual(previous, size, 2 if stage and not block else 1))
                previous = size
        self.blocks = nn.Sequential(*blocks)
        self.norm = group_norm(previous)
        self.pool = nn.AdaptiveAvgPool2d(grid_size)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(previous * grid_size**2, width)

    def forward(self, batch: Tensor) -> Tensor:
        pixels = to_float(batch, self.stem.weight.dtype)
        maps = self.blocks(self.stem(pixels.contiguous(memory_format=torch.channels_last)))
        cells = self.pool(silu(self.norm(maps))).flatten(1)  # (n, C G²)
        return self.head(self.dropout(cells))
