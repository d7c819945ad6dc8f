"""A transformer over words that are spelt in bytes; it learns from nothing and needs no download.

Axes: n texts, L bytes and word starts, M words, W width, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from omnialign import Encoder, OmniAlignError, pad_and_stack
from omnialign_text.words import head, words

WORD_START = 1
FIRST_BYTE = 2
"""Ids: 0 pads, 1 opens a word, 2 to 257 are the bytes."""
NUM_IDS = FIRST_BYTE + 256
BYTES_SEEN = 5
"""By each byte, when words are spelt: itself and two on either side."""
POSITION_STD = 0.3
"""As strong as the words. From the usual 0.02, "a left of b" and "b left of a" stay alike for
several times as many steps (measured)."""


@dataclass(frozen=True)
class Spelling:
    """A text to `(L, 2)` int16: the id of each byte or word start, and its word, from 1.

    Id 1 opens a word, and byte b of its UTF-8 is b + 2; nothing is hashed, and case is kept.

    Words are, in order: each character from U+2E80 on by itself; each mark of ASCII punctuation and
    of U+2010–2027 and U+2030–205E by itself; runs of up to 16 other characters but white space.
    Text without any has one empty word. Of the text, the longest start within `max_bytes` of UTF-8
    is taken.
    """

    max_bytes: int

    def __call__(self, text: str) -> Tensor:
        rows: list[tuple[int, int]] = []
        for index, word in enumerate(words(head(text, self.max_bytes)), start=1):
            rows.append((WORD_START, index))
            rows.extend((FIRST_BYTE + byte, index) for byte in word.encode())
        return torch.tensor(rows, dtype=torch.int16)


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

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` `(n, M, W)`, `mask` `(n, M)`, true where there is a word."""
        n, M, W = x.shape
        parts = self.query_key_value(self.attention_norm(x)).view(n, M, 3, self.num_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None])
        x = x + self.dropout(self.attention_output(mixed.transpose(1, 2).reshape(n, M, W)))
        return x + self.dropout(self.feed_forward(x))


class TransformerText(Encoder):
    """Spells each word from its bytes with a small convolution, then attends over the words.

    A tenth as many tokens as bytes make it cheap on a CPU, and bytes leave no word unknown. It is
    in the family of byte models with a stride of one word: SpaceByte (Slagle 2024,
    arXiv:2404.14408).

    Text beyond `max_bytes` UTF-8 bytes is left to the long-input policy of the modality.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        num_heads: int = 4,
        max_bytes: int = 128,
        dropout: float = 0.0,
    ) -> None:
        if width % num_heads:
            raise OmniAlignError(
                f"text encoder 'transformer': width must be a multiple of num_heads; got width="
                f"{width}, num_heads={num_heads}"
            )
        if min(width, depth, num_heads) < 1 or not 8 <= max_bytes <= 16384:
            raise OmniAlignError(
                "text encoder 'transformer': width, depth and num_heads are at least 1 and "
                f"max_bytes is 8 to 16384; got {width}, {depth}, {num_heads} and {max_bytes}"
            )
        super().__init__()
        self.width = width
        self.window = max_bytes
        self.preprocess = Spelling(max_bytes)
        self.collate = pad_and_stack
        self.letters = nn.Embedding(NUM_IDS, width, padding_idx=0)
        self.spelling = nn.Conv1d(width, width, BYTES_SEEN, padding=BYTES_SEEN // 2)
        self.positions = nn.Parameter(torch.randn(max_bytes, width) * POSITION_STD)
        self.blocks = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        ids, word = batch["values"].long().unbind(-1)
        letters = self.letters(ids)
        seen = F.gelu(self.spelling(letters.mT)).mT * batch["mask"][..., None]
        M: Any = word.max().clamp(min=2).item()
        torch._check(M >= 2)
        torch._check(self.positions.shape[0] >= M)
        member = (word[:, None] == torch.arange(1, M + 1, device=word.device)[:, None]).to(seen)
        count = member.sum(-1, keepdim=True)
        x = member @ (letters + seen) / count.clamp(min=1)
        mask = count[..., 0] > 0
        x = self.dropout(x + self.positions[:M])
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x) * mask[..., None]
        return x.sum(1) / mask.sum(1, keepdim=True)
