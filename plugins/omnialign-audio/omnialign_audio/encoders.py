"""Encoders of log-mel spectrograms, trained from scratch.

Axes: N samples, M mel bands, F frames, W width.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from omnialign import Encoder, OmniAlignError
from omnialign_audio.spectrogram import checked_log_mel


class ResidualBlock(nn.Module):
    """Two convolutions, pre-activated (He et al. 2016), with group norm."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.GroupNorm(8, outputs),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
            nn.Conv2d(inputs, outputs, 1, bias=False) if inputs != outputs else nn.Identity(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.layers(x)


class SpectrogramConv(Encoder):
    """A residual convolution over the log-mel spectrogram.

    The stem takes every fourth band and frame; three stages halve both and double the channels up
    to `width`. Bands are averaged; time is pooled by mean and maximum.
    """

    def __init__(
        self,
        sample_rate_hz: int = 16_000,
        clip_seconds: float = 2.0,
        num_mels: int = 64,
        hop_seconds: float = 0.01,
        width: int = 256,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width <= 0 or width % 64:
            raise OmniAlignError(f"wanted width divisible by 64, found {width}")
        self.width = width
        self.window = clip_seconds
        self.preprocess = checked_log_mel(sample_rate_hz, clip_seconds, num_mels, hop_seconds)
        sizes = [width // 8, width // 4, width // 2, width]
        self.layers = nn.Sequential(
            nn.Conv2d(1, sizes[0], 7, 4, 3),
            ResidualBlock(sizes[0], sizes[0], 1, dropout),
            *[ResidualBlock(a, b, 2, dropout) for a, b in pairwise(sizes)],
            nn.GroupNorm(8, width),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, width))

    def forward(self, batch: Tensor) -> Tensor:
        """Spectrograms `(N, 1, M, F)` to features `(N, W)`."""
        hidden = self.layers(batch).mean(2)
        return self.head(torch.cat([hidden.mean(-1), hidden.amax(-1)], dim=-1))


class SpectrogramTransformer(Encoder):
    """A transformer over patches of the log-mel spectrogram, as in AST (Gong et al. 2021), without
    its start from image weights. Positions are learned, a vector a band plus a vector a frame."""

    def __init__(
        self,
        sample_rate_hz: int = 16_000,
        clip_seconds: float = 2.0,
        num_mels: int = 64,
        hop_seconds: float = 0.01,
        patch_mels: int = 16,
        patch_frames: int = 8,
        width: int = 256,
        depth: int = 6,
        num_heads: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width <= 0 or width % num_heads:
            raise OmniAlignError(f"wanted width divisible by num_heads, found {width}, {num_heads}")
        log_mel = checked_log_mel(sample_rate_hz, clip_seconds, num_mels, hop_seconds)
        if not (1 <= patch_mels <= num_mels and 1 <= patch_frames <= log_mel.num_frames):
            raise OmniAlignError(
                f"wanted patches of at most {num_mels} bands and {log_mel.num_frames} frames, "
                f"found {patch_mels} and {patch_frames}"
            )
        self.width = width
        self.window = clip_seconds
        self.preprocess = log_mel
        patch = (patch_mels, patch_frames)
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.band = nn.Parameter(torch.randn(width, num_mels // patch_mels, 1) * 0.02)
        self.frame = nn.Parameter(torch.randn(width, 1, log_mel.num_frames // patch_frames) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(
            layer, depth, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, batch: Tensor) -> Tensor:
        """Spectrograms `(N, 1, M, F)` to features `(N, W)`."""
        tokens = self.patches(batch) + self.band + self.frame
        return self.layers(tokens.flatten(2).mT).mean(1)
