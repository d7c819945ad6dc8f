"""The networks of ImageBind (Girdhar et al., CVPR 2023), under the names of its published file.

Axes: n samples, S side of the square, M mel bands, F frames, T tokens of text, L tokens, W width,
H heads, D dim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omnialign_pretrained.attention_blocks import Block, attend

PARTS = ("preprocessors", "trunks", "heads", "postprocessors")
"""The four parts of the file; a name is `modality_PART.MODALITY.…`."""
EPS = 1e-6
"""Of the norms of trunk and head; those of a stem have PyTorch's own."""
AUDIO_STRIDE = 10
NUM_FRAMES = 2
"""An image is seen as so many equal frames."""


@dataclass(frozen=True)
class Sizes:
    """What the shapes of the weights say."""

    width: int
    depth: int
    hidden: int
    num_tokens: int
    """With the class token; of text, the longest sequence."""
    dim: int
    patch_size: int = 0
    vocabulary_size: int = 0


class Attention(nn.Module):
    """Self-attention over `(n, L, W)`.

    With `has_key_of_its_own`, one learned key and value, no token's, are there to be attended to:
    `add_bias_kv` of `torch.nn.MultiheadAttention`.
    """

    def __init__(self, width: int, num_heads: int, has_key_of_its_own: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        self.bias_k = self.bias_v = None
        if has_key_of_its_own:
            self.bias_k = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, 1, width)))
            self.bias_v = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, 1, width)))

    def forward(self, x: Tensor, is_causal: bool = False) -> Tensor:
        q, k, v = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat([k, self.bias_k.expand(len(x), -1, -1)], 1)
            v = torch.cat([v, self.bias_v.expand(len(x), -1, -1)], 1)
        return self.out_proj(attend(q, k, v, self.num_heads, is_causal))


class _Tower(nn.Module):
    """Stem, trunk and head; a subclass gives the tokens and picks the one that is projected."""

    NUM_HEADS: int
    """Not to be seen in the weights."""

    def __init__(self, sizes: Sizes, has_key_of_its_own: bool = False) -> None:
        super().__init__()
        self.sizes = sizes
        W, H = sizes.width, self.NUM_HEADS
        self.blocks = nn.Sequential(
            *(
                Block(W, sizes.hidden, Attention(W, H, has_key_of_its_own), eps=EPS)
                for _ in range(sizes.depth)
            )
        )
        self.head = nn.Sequential(nn.LayerNorm(W, EPS), nn.Linear(W, sizes.dim, bias=False))
        self.pos_embed = nn.Parameter(torch.randn(1, sizes.num_tokens, W) * 0.01)


class ImageTower(_Tower):
    """Pixels `(n, 3, S, S)` to `(n, D)`."""

    NUM_HEADS = 16

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        patch = (NUM_FRAMES, sizes.patch_size, sizes.patch_size)
        self.stem = nn.Conv3d(3, sizes.width, patch, patch, bias=False)
        self.cls_token = nn.Parameter(torch.randn(1, 1, sizes.width) * sizes.width**-0.5)
        self.norm = nn.LayerNorm(sizes.width, EPS)

    @property
    def image_size(self) -> int:
        return round((self.sizes.num_tokens - 1) ** 0.5) * self.sizes.patch_size

    def forward(self, batch: Tensor) -> Tensor:
        frames = batch[:, :, None].expand(-1, -1, NUM_FRAMES, -1, -1)
        patches = self.stem(frames).flatten(2).mT
        tokens = torch.cat([self.cls_token.expand(len(batch), -1, -1), patches], 1)
        return self.head(self.blocks(self.norm(tokens + self.pos_embed))[:, 0])


class AudioTower(_Tower):
    """Spectrograms `(n, 1, M, F)` to `(n, D)`."""

    NUM_HEADS = 12

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes, has_key_of_its_own=True)
        self.stem = nn.Conv2d(1, sizes.width, sizes.patch_size, AUDIO_STRIDE, bias=False)
        self.stem_norm = nn.LayerNorm(sizes.width)
        self.cls_token = nn.Parameter(torch.randn(1, 1, sizes.width) * sizes.width**-0.5)

    def forward(self, batch: Tensor) -> Tensor:
        patches = self.stem_norm(self.stem(batch).flatten(2).mT)
        tokens = torch.cat([self.cls_token.expand(len(batch), -1, -1), patches], 1)
        return self.head(self.blocks(tokens + self.pos_embed)[:, 0])


class TextTower(_Tower):
    """Token ids `(n, T)` to `(n, D)`: a token sees those before it, and the last is projected."""

    NUM_HEADS = 16

    def __init__(self, sizes: Sizes) -> None:
        super().__init__(sizes)
        self.token_embedding = nn.Embedding(sizes.vocabulary_size, sizes.width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, batch: Tensor) -> Tensor:
        tokens = self.token_embedding(batch) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens, is_causal=True)
        ends = batch.argmax(-1)  # the end token is the last word of the vocabulary
        return self.head(tokens[torch.arange(len(tokens), device=tokens.device), ends])


PUBLISHED: Mapping[str, Mapping[str, str]] = {
    "vision": {
        "stem": "modality_preprocessors.vision.rgbt_stem.proj.1",
        "cls_token": "modality_preprocessors.vision.cls_token",
        "pos_embed": "modality_preprocessors.vision.pos_embedding_helper.pos_embed",
        "norm": "modality_trunks.vision.pre_transformer_layer.0",
        "blocks": "modality_trunks.vision.blocks",
        "head.0": "modality_heads.vision.0",
        "head.1": "modality_heads.vision.2",
    },
    "text": {
        "token_embedding": "modality_preprocessors.text.token_embedding",
        "pos_embed": "modality_preprocessors.text.pos_embed",
        "blocks": "modality_trunks.text.blocks",
        "head.0": "modality_heads.text.proj.0",
        "head.1": "modality_heads.text.proj.1",
    },
    "audio": {
        "stem": "modality_preprocessors.audio.rgbt_stem.proj",
        "stem_norm": "modality_preprocessors.audio.rgbt_stem.norm_layer",
        "cls_token": "modality_preprocessors.audio.cls_token",
        "pos_embed": "modality_preprocessors.audio.pos_embedding_helper.pos_embed",
        "blocks": "modality_trunks.audio.blocks",
        "head.0": "modality_heads.audio.0",
        "head.1": "modality_heads.audio.2",
    },
}
"""Our names of parts by those of the published file."""


def published_name(modality: str, own: str) -> str:
    """The name that the file has for a weight of a tower."""
    table = PUBLISHED[modality]
    part = next(part for part in table if own == part or own.startswith(f"{part}."))
    return table[part] + own.removeprefix(part)
