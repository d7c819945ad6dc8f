"""Bags of hashed words and character n-grams: the fastest text encoder that learns from nothing.

Axes: n texts, T n-grams of one text, K cosine moments, W width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from omnialign import Encoder, OmniAlignError, pad_and_stack
from omnialign_text.words import head, words

NGRAM_LENGTHS = (3, 4, 5)
"""In characters, of a word between its boundary marks: `<red>`."""
NUM_MOMENTS = 4


@lru_cache(maxsize=65536)
def word_buckets(word: str, num_buckets: int) -> tuple[int, ...]:
    """Buckets of a word: of itself and of its n-grams, without regard to case."""
    marked = f"<{word.casefold()}>"
    grams = [marked]
    for length in NGRAM_LENGTHS:
        grams.extend(marked[i : i + length] for i in range(len(marked) - length + 1))
    return tuple(crc32(gram.encode()) % num_buckets for gram in dict.fromkeys(grams))


@dataclass(frozen=True)
class HashedNGrams:
    """A text to `buckets` `(T,)` and `weights` `(T, K)`: the share of each n-gram in each moment.

    Moment k of 0 to 3 weighs word j of M by `cos(pi k (j + 1/2) / M) / M`; a word's n-grams share
    its weight. They are the casefolded word between `<` and `>`, and the pieces of that of 3, then
    4, then 5 characters, each once. The bucket of one is the CRC-32 (zlib's) of its UTF-8 bytes,
    modulo `num_buckets`.

    Words are, in order: each character from U+2E80 on by itself; each mark of ASCII punctuation and
    of U+2010–2027 and U+2030–205E by itself; runs of up to 16 other characters but white space.
    Text without any has one empty word. Of the text, the longest start within `max_bytes` of UTF-8
    is taken.
    """

    num_buckets: int
    max_bytes: int

    def __call__(self, text: str) -> dict[str, Tensor]:
        bags = [word_buckets(word, self.num_buckets) for word in words(head(text, self.max_bytes))]
        sizes = torch.tensor([len(bag) for bag in bags])
        place = (torch.arange(len(bags)) + 0.5) / len(bags)
        moments = torch.cos(math.pi * place[:, None] * torch.arange(NUM_MOMENTS)) / len(bags)
        return {
            "buckets": torch.tensor([bucket for bag in bags for bucket in bag]),
            "weights": (moments / sizes[:, None]).repeat_interleave(sizes, 0),
        }


def pad_bags(inputs: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Stacks bags `(n, T)` and weights `(n, T, K)`, zero where the mask `(n, T)` is false."""
    bags = pad_and_stack([one["buckets"] for one in inputs])
    weights = pad_sequence([one["weights"] for one in inputs], batch_first=True)
    return {"buckets": bags["values"], "weights": weights, "mask": bags["mask"]}


class NGramText(Encoder):
    """Word vectors summed from n-grams, a short cosine transform over the words, a small MLP.

    Word vectors are those of fastText (Bojanowski et al. 2017, "Enriching word vectors with
    subword information", TACL 5), so a word that training never saw takes its vector from its
    parts. The cosine transform (Almarwani et al. 2019, "Efficient sentence embedding using
    discrete cosine transform", EMNLP) keeps the order of words, which a plain bag loses.

    Text beyond `max_bytes` UTF-8 bytes is left to the long-input policy of the modality.
    """

    def __init__(
        self,
        width: int = 128,
        num_buckets: int = 16384,
        max_bytes: int = 256,
        dropout: float = 0.0,
    ) -> None:
        if min(width, num_buckets) < 1 or max_bytes < 8:
            raise OmniAlignError(
                "text encoder 'ngrams': width and num_buckets are at least 1 and max_bytes at "
                f"least 8; got {width}, {num_buckets} and {max_bytes}"
            )
        super().__init__()
        self.width = width
        self.window = max_bytes
        self.preprocess = HashedNGrams(num_buckets, max_bytes)
        self.collate = pad_bags
        self.vectors = nn.Embedding(num_buckets, width)
        self.mix = nn.Sequential(
            nn.Flatten(),
            nn.LayerNorm(NUM_MOMENTS * width),
            nn.Dropout(dropout),
            nn.Linear(NUM_MOMENTS * width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.mix(batch["weights"].mT @ self.vectors(batch["buckets"]))
