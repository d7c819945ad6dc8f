"""A transformer over residues with rotary positions, from scratch.

Axes: n proteins, T residues with a mark at either end, W width, H heads, E width of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from omnialign import Encoder, OmniAlignError, pad_and_stack
from omnialign_protein.residues import NUM_IDS, MeanAndMax, ResidueIds

LONGEST_WAVE = 10_000.0
"""Of the rotation, in residues, up to a factor of 2 pi."""


def rotations(length: int, head_width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each position's angles, `(T, E/2)` each.

    Rotary positions: Su et al. 2021, "RoFormer", arXiv:2104.09864.
    """
    half = head_width // 2
    speeds = LONGEST_WAVE ** -(torch.arange(half, device=device) / half)
    angles = torch.arange(length, device=device)[:, None] * speeds
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turns the halves of `(n, H, T, E)` against each other by each position's angles."""
    cos, sin = turn
    one, other = x.chunk(2, dim=-1)
    return torch.cat([one * cos - other * sin, other * cos + one * sin], dim=-1)


class Block(nn.Module):
    """Self-attention and a feed-forward part, each behind a layer norm and added to its input."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
        """`x` `(n, T, W)`, `mask` `(n, T)`, true where there is data."""
        n, T, W = x.shape
        parts = self.query_key_value(self.attention_norm(x)).view(n, T, 3, self.num_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            rotate(query, turn), rotate(key, turn), value, attn_mask=mask[:, None, None]
        )
        x = x + self.dropout(self.attention_output(mixed.transpose(1, 2).reshape(n, T, W)))
        return x + self.dropout(self.feed_forward(x))


class TransformerProtein(Encoder):
    """Attention over residues; it scales to large data better than `conv`, and costs more.

    Residues beyond `max_residues` are left to the long-input policy of the modality.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 3,
        num_heads: int = 4,
        max_residues: int = 512,
        dropout: float = 0.0,
    ) -> None:
        if num_heads < 1 or width < 2 or width % (2 * num_heads):
            raise OmniAlignError(
                "protein encoder 'transformer': width is a multiple of twice num_heads, because "
                f"rotary positions turn pairs; got width={width}, num_heads={num_heads}"
            )
        if min(depth, max_residues) < 1:
            raise OmniAlignError(
                "protein encoder 'transformer': depth and max_residues are at least 1; got "
                f"{depth} and {max_residues}"
            )
        super().__init__()
        self.width = width
        self.window = max_residues
        self.preprocess = ResidueIds(max_residues)
        self.collate = pad_and_stack
        self.head_width = width // num_heads
        self.residues = nn.Embedding(NUM_IDS, width, padding_idx=0)
        self.blocks = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.pool = MeanAndMax(width)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        x = self.residues(batch["values"].long())
        mask = batch["mask"]
        turn = rotations(x.shape[1], self.head_width, x.device)
        for block in self.blocks:
            x = block(x, mask, turn)
        return self.pool(self.norm(x), mask)
