"""A vision transformer.

Axes: n images, S side of the square, P patch side, L tokens, W width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from omnialign import Encoder, OmniAlignError
from omnialign_image.fitting import Fit, FitSquare, to_float


class ViTEncoder(Encoder):
    """Attention over square patches, after Dosovitskiy et al., "An Image is Worth 16x16 Words"
    (ICLR 2021): patches, learned positions, pre-norm blocks.

    Takes uint8 `(n, 3, S, S)` and gives `(n, W)`: the class token (`pooling = "class"`) or the mean
    of the patch tokens (`"mean"`). About 2.8 million weights as it stands; `image_size = 224,
    patch_size = 16, width = 768, depth = 12, num_heads = 12` is ViT-B/16. Raises `OmniAlignError`
    where `patch_size` does not divide `image_size`, or `num_heads` does not divide `width`.
    """

    def __init__(
        self,
        image_size: int = 64,
        patch_size: int = 8,
        width: int = 192,
        depth: int = 6,
        num_heads: int = 3,
        dropout: float = 0.1,
        pooling: Literal["class", "mean"] = "mean",
        fit: Fit = "pad",
    ) -> None:
        super().__init__()
        if image_size % patch_size or width % num_heads:
            raise OmniAlignError(
                f"patch_size {patch_size} must divide image_size {image_size}, and num_heads "
                f"{num_heads} must divide width {width}"
            )
        self.width = width
        self.preprocess = FitSquare(image_size, fit)
        self.resolution = image_size
        self.pooling = pooling
        self.patches = nn.Conv2d(3, width, patch_size, patch_size)
        num_tokens = (image_size // patch_size) ** 2 + (pooling == "class")
        self.positions = nn.Parameter(torch.randn(num_tokens, width) * 0.02)
        if pooling == "class":
            self.class_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, num_heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            block, depth, nn.LayerNorm(width), enable_nested_tensor=False
        )

    def forward(self, batch: Tensor) -> Tensor:
        tokens = self.patches(to_float(batch, self.positions.dtype)).flatten(2).mT  # (n, L, W)
        if self.pooling == "class":
            tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], 1)
        tokens = self.blocks(tokens + self.positions)
        return tokens[:, 0] if self.pooling == "class" else tokens.mean(1)
