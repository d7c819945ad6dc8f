"""Small text encoders over a byte-level tokenizer that needs no vocabulary and no download.

A word is the sum of hashed n-grams of its UTF-8 bytes, and of itself, so that words it has never
seen share what they are made of with words that it has (Bojanowski et al., TACL 2017,
arXiv:1607.04606).

Axes: n texts, L words of the longest text, K hashes of a word, w width.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from omnialign import Encoder, OmniAlignError, pad_and_stack

NGRAM_BYTES = (3, 4, 5)
PUNCTUATION = ".,;:!?\"'()[]{}«»“”‘’…"
Batch = dict[str, Tensor]


@lru_cache(maxsize=65536)
def word_hashes(word: str, num_buckets: int, hashes_per_word: int) -> tuple[int, ...]:
    """Buckets `(K,)` in 1..num_buckets: the word itself, then its n-grams, then zeros."""
    data = b"<" + word.encode() + b">"
    pieces = [data, *(data[i : i + n] for n in NGRAM_BYTES for i in range(len(data) - n + 1))]
    found = [1 + zlib.crc32(piece) % num_buckets for piece in pieces[:hashes_per_word]]
    return tuple(found + [0] * (hashes_per_word - len(found)))


@dataclass(frozen=True)
class HashWords:
    """A text to the hashes `(L, K)` of its first `max_words` words, in lower case."""

    num_buckets: int
    max_words: int
    hashes_per_word: int = 16

    def __call__(self, sample: str) -> Tensor:
        words = [word.strip(PUNCTUATION) or word for word in sample.lower().split()]
        hashes = [
            word_hashes(word[:64], self.num_buckets, self.hashes_per_word)
            for word in words[: self.max_words]
        ]
        return torch.tensor(hashes, dtype=torch.int64)


class WordVectors(nn.Module):
    """Hashes `(n, L, K)` to word vectors `(n, L, w)`: the mean over a word's pieces."""

    def __init__(self, num_buckets: int, width: int) -> None:
        super().__init__()
        self.pieces = nn.EmbeddingBag(num_buckets + 1, width, mode="mean", padding_idx=0)
        nn.init.normal_(self.pieces.weight, std=1.0)
        self.norm = nn.LayerNorm(width)

    def forward(self, hashes: Tensor) -> Tensor:
        n, L, K = hashes.shape
        return self.norm(self.pieces(hashes.view(n * L, K)).view(n, L, -1))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """`(n, L, w)` and `(n, L)` to `(n, w)`."""
    kept = values * mask[..., None]
    return kept.sum(1) / mask.sum(1, keepdim=True)


class NgramsEncoder(Encoder):
    """A bag of words: fast, strong on names, blind to word order.

    Args:
        width: w of the features.
        num_buckets: rows of the hash table.
        max_words: words that are read.
        dropout: of the hidden layer.
    """

    def __init__(
        self, width: int = 256, num_buckets: int = 8192, max_words: int = 64, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.width = width
        self.window = float(max_words)
        self.preprocess = HashWords(num_buckets, max_words)
        self.words = WordVectors(num_buckets, width)
        self.mix = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    @staticmethod
    def collate(inputs: Sequence[Tensor]) -> Batch:
        return pad_and_stack(inputs)

    def forward(self, batch: Batch) -> Tensor:
        pooled = masked_mean(self.words(batch["values"]), batch["mask"])
        return pooled + self.mix(pooled)


class TransformerEncoder(Encoder):
    """A pre-norm transformer over words, with learned positions; minds their order.

    Args:
        width: w of the features.
        depth: layers.
        num_heads: of attention; divides the width.
        num_buckets: rows of the hash table.
        max_words: words that are read.
        dropout: everywhere.
    """

    def __init__(
        self,
        width: int = 128,
        depth: int = 2,
        num_heads: int = 4,
        num_buckets: int = 8192,
        max_words: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise OmniAlignError(f"width {width} is no multiple of num_heads {num_heads}")
        self.width = width
        self.window = float(max_words)
        self.preprocess = HashWords(num_buckets, max_words)
        self.words = WordVectors(num_buckets, width)
        self.positions = nn.Parameter(torch.randn(max_words, width) * 0.3)
        layer = nn.TransformerEncoderLayer(
            width,
            num_heads,
            4 * width,
            dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    @staticmethod
    def collate(inputs: Sequence[Tensor]) -> Batch:
        return pad_and_stack(inputs)

    def forward(self, batch: Batch) -> Tensor:
        mask = batch["mask"]
        words = self.words(batch["values"])
        places = self.positions[: words.shape[1]]
        mixed = self.layers(words + places, src_key_padding_mask=~mask)
        return masked_mean(self.norm(mixed), mask)
