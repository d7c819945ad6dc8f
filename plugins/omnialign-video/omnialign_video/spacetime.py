"""A transformer over tubelets: blocks of space and time.

Axes: n clips, F frames, S side of the square, L tokens, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omnialign import Encoder, OmniAlignError
from omnialign_video.fitting import Fit, FitClip, to_float


class SpaceTimeEncoder(Encoder):
    """Joint attention over all tubelets, model 1 of Arnab et al., "ViViT: A Video Vision
    Transformer" (ICCV 2021).

    Takes uint8 `(n, F, 3, S, S)` and gives `(n, W)`, the mean of the tokens. Positions are learned,
    one table for space and one for time. About 1.9 million weights as it stands. Raises
    `OmniAlignError` where a tubelet does not divide the clip, or `num_heads` the width.

    Args:
        num_frames: Frames F, spread evenly over the clip or window.
        image_size: The side S.
        clip_seconds: The longest stretch that is seen at once; longer clips are cut into windows.
        patch_size: The side of a tubelet, in pixels.
        tubelet_frames: The length of a tubelet.
        width: W of tokens and features.
        depth: Transformer blocks.
        num_heads: Of the attention.
        dropout: In attention and feed-forward layers.
        fit: How a frame becomes a square.
    """

    def __init__(
        self,
        num_frames: int = 8,
        image_size: int = 48,
        clip_seconds: float = 4.0,
        patch_size: int = 8,
        tubelet_frames: int = 2,
        width: int = 192,
        depth: int = 4,
        num_heads: int = 3,
        dropout: float = 0.1,
        fit: Fit = "pad",
    ) -> None:
        super().__init__()
        counts = (num_frames, image_size, patch_size, tubelet_frames, width, depth, num_heads)
        if min(counts) < 1 or clip_seconds <= 0:
            raise OmniAlignError(
                f"all sizes must be positive; got num_frames {num_frames}, "
                f"image_size {image_size}, clip_seconds {clip_seconds}, patch_size {patch_size}, "
                f"tubelet_frames {tubelet_frames}, width {width}, depth {depth}, "
                f"num_heads {num_heads}"
            )
        if image_size % patch_size or num_frames % tubelet_frames or width % num_heads:
            raise OmniAlignError(
                f"patch_size {patch_size} must divide image_size {image_size}, tubelet_frames "
                f"{tubelet_frames} num_frames {num_frames}, and num_heads {num_heads} width {width}"
            )
        self.width = width
        self.window = clip_seconds
        self.preprocess = FitClip(num_frames, image_size, fit)
        tubelet = (tubelet_frames, patch_size, patch_size)
        self.tubelets = nn.Conv3d(3, width, tubelet, tubelet)
        num_places = (image_size // patch_size) ** 2
        self.places = nn.Parameter(torch.randn(num_places, width) * 0.02)
        self.instants = nn.Parameter(torch.randn(num_frames // tubelet_frames, 1, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            block, depth, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, batch: Tensor) -> Tensor:
        pixels = to_float(batch.transpose(1, 2), self.places.dtype)  # (n, 3, F, S, S)
        tokens = self.tubelets(pixels).flatten(2).mT  # (n, L, W), by time, then place
        return self.blocks(tokens + (self.instants + self.places).flatten(0, 1)).mean(1)
